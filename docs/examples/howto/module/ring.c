// SPDX-License-Identifier: MIT
/* /dev/ring keeps the last message that was written to it, and gives it back, once. */
#include <linux/fs.h>
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/slab.h>
#include <linux/uaccess.h>

struct message {
	size_t length;
	char text[64];
};

static DEFINE_MUTEX(lock);
static struct message *last;

static ssize_t ring_write(struct file *file, const char __user *from, size_t count, loff_t *at)
{
	struct message *message;

	if (count > sizeof(message->text))
		return -EMSGSIZE;
	message = kzalloc(sizeof(*message), GFP_KERNEL);
	if (!message)
		return -ENOMEM;
	if (copy_from_user(message->text, from, count)) {
		kfree(message);
		return -EFAULT;
	}
	message->length = count;
	mutex_lock(&lock);
	kfree(last);
	last = message;
	mutex_unlock(&lock);
	return count;
}

/* Gives the message away; there is none until the next one is written. */
static struct message *take(void)
{
	struct message *message = last;

	last = NULL;
	return message;
}

static ssize_t ring_read(struct file *file, char __user *to, size_t count, loff_t *at)
{
	struct message *message;
	ssize_t length;

	mutex_lock(&lock);
	message = take();
	length = min(count, message->length);	/* the bug: there may be none */
	if (copy_to_user(to, message->text, length))
		length = -EFAULT;
	kfree(message);
	mutex_unlock(&lock);
	return length;
}

static const struct file_operations operations = {
	.owner = THIS_MODULE,
	.read = ring_read,
	.write = ring_write,
};

static struct miscdevice device = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "ring",
	.fops = &operations,
};

module_misc_device(device);
MODULE_DESCRIPTION("keeps a message");
MODULE_LICENSE("GPL");
