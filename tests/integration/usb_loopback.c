/* Drives the loopback device through usbfs: what goes out has to come back, byte by byte.
 * usage: usb_loopback /dev/bus/usb/BUS/DEVICE
 * Says "KIND ok BYTES" for each kind of transfer; the first that does not match ends it. */
#include <errno.h>
#include <fcntl.h>
#include <linux/usbdevice_fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

enum { PACKETS = 16, PACKET = 192 };

static int device;

static void die(const char *what)
{
	printf("%s: %s\n", what, strerror(errno));
	exit(1);
}

static void fill(unsigned char *data, int size, int seed)
{
	for (int n = 0; n < size; n++)
		data[n] = (unsigned char)(n * 31 + n / 251 + seed);
}

static int transfer(int endpoint, void *data, int size)
{
	struct usbdevfs_bulktransfer bulk = { endpoint, size, 10000, data };
	return ioctl(device, USBDEVFS_BULK, &bulk);
}

static void loop(const char *kind, int endpoint, const int *sizes)
{
	static unsigned char out[65536], in[65536];
	int total = 0;
	for (; *sizes; sizes++) {
		fill(out, *sizes, *sizes);
		memset(in, 0, sizeof in);
		if (transfer(endpoint, out, *sizes) != *sizes)
			die(kind);
		if (transfer(0x80 | endpoint, in, *sizes) != *sizes)
			die(kind);
		if (memcmp(out, in, *sizes)) {
			printf("%s: %d bytes came back changed\n", kind, *sizes);
			exit(1);
		}
		total += *sizes;
	}
	printf("%s ok %d\n", kind, total);
}

static void control(void)
{
	unsigned char out[256], in[256] = { 0 };
	fill(out, sizeof out, 7);
	struct usbdevfs_ctrltransfer to = { 0x40, 0x5b, 0, 0, sizeof out, 10000, out };
	struct usbdevfs_ctrltransfer from = { 0xc0, 0x5c, 0, 0, sizeof in, 10000, in };
	if (ioctl(device, USBDEVFS_CONTROL, &to) < 0 || ioctl(device, USBDEVFS_CONTROL, &from) < 0)
		die("control");
	if (memcmp(out, in, sizeof out)) {
		puts("control: changed");
		exit(1);
	}
	printf("control ok %zu\n", sizeof out);
}

static struct usbdevfs_urb *iso_urb(int endpoint, unsigned char *data)
{
	struct usbdevfs_urb *urb =
		calloc(1, sizeof *urb + PACKETS * sizeof(struct usbdevfs_iso_packet_desc));
	urb->type = USBDEVFS_URB_TYPE_ISO;
	urb->endpoint = endpoint;
	urb->flags = USBDEVFS_URB_ISO_ASAP;
	urb->buffer = data;
	urb->buffer_length = PACKETS * PACKET;
	urb->number_of_packets = PACKETS;
	for (int n = 0; n < PACKETS; n++)
		urb->iso_frame_desc[n].length = PACKET;
	return urb;
}

static void submit(struct usbdevfs_urb *urb)
{
	if (ioctl(device, USBDEVFS_SUBMITURB, urb))
		die("iso submit");
}

static struct usbdevfs_urb *reap(void)
{
	struct usbdevfs_urb *urb = NULL;
	if (ioctl(device, USBDEVFS_REAPURB, &urb))
		die("iso reap");
	return urb;
}

/* Packets that had nothing to bring are of no length; those that have are in order. */
static void iso(void)
{
	static unsigned char out[PACKETS * PACKET], in[PACKETS * PACKET], back[PACKETS * PACKET];
	struct usbdevfs_setinterface streaming = { 0, 1 };
	if (ioctl(device, USBDEVFS_SETINTERFACE, &streaming))
		die("alternate setting 1");
	fill(out, sizeof out, 3);
	submit(iso_urb(3, out));
	struct usbdevfs_urb *sent = reap();
	for (int n = 0; n < PACKETS; n++)
		if (sent->iso_frame_desc[n].status) {
			printf("iso: packet %d out: %d\n", n, sent->iso_frame_desc[n].status);
			exit(1);
		}
	size_t got = 0;
	for (int tries = 0; got < sizeof out && tries < 100; tries++) {
		submit(iso_urb(0x83, in));
		struct usbdevfs_urb *urb = reap();
		for (int n = 0; n < PACKETS; n++) {
			unsigned size = urb->iso_frame_desc[n].actual_length;
			if (size > sizeof out - got)
				size = sizeof out - got;
			memcpy(back + got, in + n * PACKET, size);
			got += size;
		}
		free(urb);
	}
	if (got != sizeof out || memcmp(out, back, sizeof out)) {
		printf("iso: %zu bytes came back, %s\n", got, "not the same");
		exit(1);
	}
	printf("iso ok %zu\n", got);
}

int main(int argc, char **argv)
{
	static const int bulk[] = { 1, 511, 512, 513, 4096, 16384, 65536, 0 };
	static const int interrupt[] = { 1, 8, 63, 64, 0 };
	int interface = 0;
	(void)argc;
	setvbuf(stdout, NULL, _IOLBF, 0);
	if ((device = open(argv[1], O_RDWR)) < 0)
		die(argv[1]);
	if (ioctl(device, USBDEVFS_CLAIMINTERFACE, &interface))
		die("claim");
	control();
	loop("bulk", 1, bulk);
	loop("interrupt", 2, interrupt);
	iso();
	return 0;
}
