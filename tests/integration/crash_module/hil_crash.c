// SPDX-License-Identifier: MIT
/*
 * A kernel module that crashes in many ways: the word that is written to /proc/hil_crash says how.
 *
 * Each way is a function of its own that is never inlined, so that its name is in the trace.
 * Values that the compiler must not know beforehand are volatile.
 */
#include <linux/completion.h>
#include <linux/delay.h>
#include <linux/hrtimer.h>
#include <linux/interrupt.h>
#include <linux/kthread.h>
#include <linux/list.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/proc_fs.h>
#include <linux/rcupdate.h>
#include <linux/refcount.h>
#include <linux/sched.h>
#include <linux/slab.h>
#include <linux/spinlock.h>
#include <linux/string.h>
#include <linux/timer.h>
#include <linux/uaccess.h>
#include <linux/vmalloc.h>
#include <linux/workqueue.h>

static volatile int sink;
static volatile int zero;
static volatile long address;
static volatile size_t size;
static const int constant = 1;

/* The writer's buffer. */
static char __user *buffer;

/* --- faults ------------------------------------------------------------------------------- */

static noinline void null_read(void)
{
	sink = *(volatile int *)address;
}

static noinline void null_write(void)
{
	((volatile int *)address)[4] = 1;
}

static noinline void null_call(void)
{
	((void (*)(void))address)();
	sink = 1; /* else the compiler jumps there, and no frame of ours is left */
}

static noinline void wild_write(void)
{
	address = (long)0xffffc8ff00000010UL;
	*(volatile int *)address = 1;
}

static noinline void not_canonical(void)
{
	address = (long)0xdead000000000100UL;
	sink = *(volatile int *)address;
}

static noinline void constant_write(void)
{
	const int *where = &constant;

	OPTIMIZER_HIDE_VAR(where);
	*(volatile int *)where = 2;
}

static noinline void run_data(void)
{
	void *page = kmalloc(64, GFP_KERNEL);

	memset(page, 0xc3, 64);
	((void (*)(void))page)();
	sink = 1;
	kfree(page);
}

static noinline void user_read(void)
{
	sink = *(volatile int __force *)buffer;
}

static noinline void past_vmalloc(void)
{
	volatile char *area = vmalloc(PAGE_SIZE);

	area[PAGE_SIZE + zero] = 1;
}

static noinline void divide(void)
{
	sink = 100 / zero;
}

static noinline void bad_opcode(void)
{
	/* ud1: the kernel takes ud2 for a BUG() of its own. */
	asm volatile(".byte 0x0f, 0xb9, 0xc0");
}

static noinline void breakpoint(void)
{
	asm volatile("int3");
}

/* --- checks that the kernel's authors wrote down ------------------------------------------ */

static noinline void a_bug(void)
{
	BUG_ON(!zero);
}

static noinline void a_warning(void)
{
	WARN_ON(!zero);
}

static noinline void warning_text(void)
{
	WARN(1, "hil_crash: %d is no number at %px\n", 42, &zero);
}

static noinline void a_panic(void)
{
	panic("hil_crash: %d is too many", 42);
}

/* --- the stack ---------------------------------------------------------------------------- */

static noinline int deep(int depth)
{
	volatile char room[256];

	room[depth & 255] = depth;
	return deep(depth + 1) + room[(depth + 1) & 255];
}

static noinline void stack_overflow(void)
{
	sink = deep(1);
}

static noinline void stack_smash(void)
{
	volatile char room[16];
	int at;

	for (at = 0; at < 64 + zero; at++)
		room[at] = 'A';
	sink = room[3];
}

/* --- what does not get on ----------------------------------------------------------------- */

static DEFINE_MUTEX(mutex);
static DEFINE_SPINLOCK(lock);
static DECLARE_COMPLETION(never);

static noinline void mutex_twice(void)
{
	mutex_lock(&mutex);
	mutex_lock(&mutex);
}

static noinline void never_done(void)
{
	wait_for_completion(&never);
}

static noinline void spin(void)
{
	preempt_disable();
	while (!zero)
		cpu_relax();
}

static noinline void lock_twice(void)
{
	spin_lock(&lock);
	spin_lock(&lock);
}

static noinline void read_side(void)
{
	rcu_read_lock();
	while (!zero)
		cpu_relax();
	rcu_read_unlock();
}

static noinline void sleep_in_atomic(void)
{
	spin_lock(&lock);
	msleep(20);
	spin_unlock(&lock);
}

/* --- data --------------------------------------------------------------------------------- */

static noinline void free_twice(void)
{
	void *object = kmalloc(64, GFP_KERNEL);

	kfree(object);
	kfree(object);
}

static noinline void free_nothing(void)
{
	kfree((void *)((long)&sink & ~7L));
}

static noinline void vfree_twice(void)
{
	void *area = vmalloc(PAGE_SIZE);

	vfree(area);
	vfree(area);
}

static LIST_HEAD(list);
static struct list_head one, two;

static noinline void add_twice(void)
{
	list_add(&one, &list);
	list_add(&one, &list);
}

static noinline void delete_twice(void)
{
	list_add(&one, &list);
	list_del(&one);
	list_del(&one);
}

static noinline void bad_neighbour(void)
{
	list_add(&one, &list);
	list_add(&two, &list);
	one.prev = &list;
	list_del(&two);
}

static noinline void put_twice(void)
{
	refcount_t count = REFCOUNT_INIT(1);

	sink = refcount_dec_and_test(&count);
	sink = refcount_dec_and_test(&count);
}

static noinline void get_zero(void)
{
	refcount_t count = REFCOUNT_INIT(0);

	refcount_inc(&count);
}

static noinline void give_too_much(void)
{
	char *object;

	size = 64;
	object = kmalloc(size, GFP_KERNEL);
	size = 128;
	OPTIMIZER_HIDE_VAR(object);
	sink = copy_to_user(buffer, object, size);
	kfree(object);
}

static struct {
	char name[16];
	char next[16];
} pair;

static noinline void copy_too_much(void)
{
	size = 24;
	memcpy(pair.name, (const void *)constant_write, size);
}

static noinline void no_end(void)
{
	memset(pair.name, 'a', sizeof(pair.name));
	sink = strlen(pair.name);
}

static noinline void bad_page(void)
{
	struct page *page = alloc_pages(GFP_KERNEL, 5);

	page->mapping = (void *)0x100;
	__free_pages(page, 5);
}

/* A cache that SLUB watches, whatever the kernel's parameters are. */
static struct kmem_cache *watched(void)
{
	return kmem_cache_create("hil_crash", 64, 0,
				 SLAB_POISON | SLAB_RED_ZONE | SLAB_CONSISTENCY_CHECKS, NULL);
}

static noinline void write_after_free(void)
{
	struct kmem_cache *cache = watched();
	char *object = kmem_cache_alloc(cache, GFP_KERNEL);

	kmem_cache_free(cache, object);
	((volatile char *)object)[40] = 1;
	kmem_cache_shrink(cache);
}

static noinline void write_past_end(void)
{
	struct kmem_cache *cache = watched();
	char *object = kmem_cache_alloc(cache, GFP_KERNEL);

	((volatile char *)object)[64 + zero] = 1;
	kmem_cache_free(cache, object);
}

static noinline void free_watched_twice(void)
{
	struct kmem_cache *cache = watched();
	char *object = kmem_cache_alloc(cache, GFP_KERNEL);

	kmem_cache_free(cache, object);
	kmem_cache_free(cache, object);
}

static noinline void wrong_cache(void)
{
	kmem_cache_free(watched(), kmalloc(64, GFP_KERNEL));
}

static noinline void leave_objects(void)
{
	struct kmem_cache *cache = watched();

	sink = !kmem_cache_alloc(cache, GFP_KERNEL);
	kmem_cache_destroy(cache);
}

/* --- elsewhere than in a system call ------------------------------------------------------ */

static void in_work(struct work_struct *work)
{
	sink = *(volatile int *)address;
}

static void leaks(struct work_struct *work)
{
	preempt_disable();
}

static DECLARE_WORK(work, in_work);
static DECLARE_WORK(leak, leaks);

static noinline void queue(void)
{
	schedule_work(&work);
}

static noinline void leak_atomic(void)
{
	schedule_work(&leak);
}

static void in_timer(struct timer_list *timer)
{
	sink = *(volatile int *)address;
}

static DEFINE_TIMER(timer, in_timer);

static noinline void start_timer(void)
{
	mod_timer(&timer, jiffies + 1);
}

static enum hrtimer_restart in_hrtimer(struct hrtimer *timer)
{
	BUG_ON(!zero);
	return HRTIMER_NORESTART;
}

static struct hrtimer hrtimer;

static noinline void interrupt(void)
{
	hrtimer_init(&hrtimer, CLOCK_MONOTONIC, HRTIMER_MODE_REL_HARD);
	hrtimer.function = in_hrtimer;
	hrtimer_start(&hrtimer, ms_to_ktime(1), HRTIMER_MODE_REL_HARD);
}

static int in_thread(void *data)
{
	sink = *(volatile int *)address;
	return 0;
}

static noinline void start_kthread(void)
{
	kthread_run(in_thread, NULL, "hil-%d", 7);
}

/* --- what only an instrumented kernel sees ------------------------------------------------ */

static DEFINE_MUTEX(first);
static DEFINE_MUTEX(second);

static noinline void lock_in_this_order(void)
{
	mutex_lock(&first);
	mutex_lock(&second);
	mutex_unlock(&second);
	mutex_unlock(&first);
}

static noinline void lock_order(void)
{
	lock_in_this_order();
	mutex_lock(&second);
	mutex_lock(&first);
	mutex_unlock(&first);
	mutex_unlock(&second);
}

static noinline void lock_recursion(void)
{
	spinlock_t locks[2];
	int each;

	for (each = 0; each < 2; each++)
		spin_lock_init(&locks[each]);
	spin_lock(&locks[0]);
	spin_lock(&locks[1]);
	spin_unlock(&locks[1]);
	spin_unlock(&locks[0]);
}

static noinline void unlock_free(void)
{
	rwlock_t one;

	rwlock_init(&one);
	read_lock(&one);
	read_unlock(&one);
	rwlock_release(&one.dep_map, _THIS_IP_);
}

static noinline void free_held(void)
{
	struct mutex *one = kmalloc(sizeof(*one), GFP_KERNEL);

	mutex_init(one);
	mutex_lock(one);
	kfree(one);
}

static noinline void keep_lock(void)
{
	mutex_lock(&first);
}

static DEFINE_RAW_SPINLOCK(raw);

static enum hrtimer_restart locks_raw(struct hrtimer *timer)
{
	raw_spin_lock(&raw);
	raw_spin_unlock(&raw);
	return HRTIMER_NORESTART;
}

static enum hrtimer_restart locks(struct hrtimer *timer)
{
	spin_lock(&lock);
	spin_unlock(&lock);
	return HRTIMER_NORESTART;
}

static void soon(enum hrtimer_restart (*function)(struct hrtimer *timer))
{
	hrtimer_init(&hrtimer, CLOCK_MONOTONIC, HRTIMER_MODE_REL_HARD);
	hrtimer.function = function;
	hrtimer_start(&hrtimer, ms_to_ktime(1), HRTIMER_MODE_REL_HARD);
}

static noinline void irq_unsafe(void)
{
	raw_spin_lock(&raw);
	raw_spin_unlock(&raw);
	soon(locks_raw);
}

static noinline void wait_in_irq(void)
{
	soon(locks);
}

static int __rcu *shared;

static noinline void rcu_unprotected(void)
{
	sink = !rcu_dereference(shared);
}

static noinline void mutex_in_atomic(void)
{
	spin_lock(&lock);
	mutex_lock(&first);
	mutex_unlock(&first);
	spin_unlock(&lock);
}

static noinline void read_freed(void)
{
	volatile char *object = kmalloc(64, GFP_KERNEL);

	kfree((void *)object);
	sink = object[8];
}

static noinline void write_past_slab(void)
{
	volatile char *object = kmalloc(64, GFP_KERNEL);

	object[64 + zero] = 1;
	kfree((void *)object);
}

static noinline void read_past_stack(void)
{
	volatile char room[16] = "";
	volatile char *at = room;

	OPTIMIZER_HIDE_VAR(at); /* else UBSAN sees it first */
	sink = at[16 + zero];
}

static noinline void read_past_global(void)
{
	volatile char *name = pair.next;

	sink = name[16 + zero];
}

static noinline void shift_too_far(void)
{
	sink = 1 << (40 + zero);
}

static noinline void index_past_end(void)
{
	static int few[4];

	sink = few[5 + zero];
}

static noinline void bad_bool(void)
{
	bool answer;

	*(volatile char *)&answer = 7;
	sink = answer;
}

static int counter;

static int count(void *data)
{
	while (!kthread_should_stop()) {
		counter++;
		cond_resched();
	}
	return 0;
}

static noinline void race(void)
{
	struct task_struct *one = kthread_run(count, NULL, "hil-one");
	struct task_struct *other = kthread_run(count, NULL, "hil-other");

	msleep(8000);
	kthread_stop(one);
	kthread_stop(other);
}

/* --- which -------------------------------------------------------------------------------- */

#define WAY(name) { #name, name }
static const struct {
	const char *word;
	void (*run)(void);
} ways[] = {
	WAY(null_read), WAY(null_write), WAY(null_call), WAY(wild_write), WAY(not_canonical),
	WAY(constant_write), WAY(run_data), WAY(user_read), WAY(past_vmalloc), WAY(divide),
	WAY(bad_opcode), WAY(breakpoint),
	WAY(a_bug), WAY(a_warning), WAY(warning_text), WAY(a_panic),
	WAY(stack_overflow), WAY(stack_smash),
	WAY(mutex_twice), WAY(never_done), WAY(spin), WAY(lock_twice), WAY(read_side),
	WAY(sleep_in_atomic),
	WAY(free_twice), WAY(free_nothing), WAY(vfree_twice), WAY(add_twice), WAY(delete_twice),
	WAY(bad_neighbour), WAY(put_twice), WAY(get_zero), WAY(give_too_much), WAY(copy_too_much), WAY(no_end),
	WAY(bad_page), WAY(write_after_free), WAY(write_past_end), WAY(free_watched_twice),
	WAY(wrong_cache), WAY(leave_objects),
	WAY(queue), WAY(leak_atomic), WAY(start_timer), WAY(interrupt), WAY(start_kthread),
	WAY(lock_order), WAY(lock_recursion), WAY(unlock_free), WAY(free_held), WAY(keep_lock),
	WAY(irq_unsafe), WAY(wait_in_irq), WAY(rcu_unprotected), WAY(mutex_in_atomic),
	WAY(read_freed), WAY(write_past_slab), WAY(read_past_stack), WAY(read_past_global),
	WAY(shift_too_far), WAY(index_past_end), WAY(bad_bool), WAY(race),
};

static ssize_t chosen(struct file *file, const char __user *from, size_t count, loff_t *at)
{
	char word[32] = "";
	size_t each;

	if (count >= sizeof(word) || copy_from_user(word, from, count))
		return -EINVAL;
	buffer = (char __user *)from;
	for (each = 0; each < ARRAY_SIZE(ways); each++) {
		if (sysfs_streq(word, ways[each].word)) {
			ways[each].run();
			return count;
		}
	}
	return -ENOENT;
}

static const struct proc_ops operations = { .proc_write = chosen };

static int __init start(void)
{
	return proc_create("hil_crash", 0200, NULL, &operations) ? 0 : -ENOMEM;
}

static void __exit end(void)
{
	remove_proc_entry("hil_crash", NULL);
}

module_init(start);
module_exit(end);
MODULE_DESCRIPTION("crashes in many ways");
MODULE_LICENSE("GPL");
