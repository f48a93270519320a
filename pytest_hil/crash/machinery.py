"""Functions that are in a trace because there is a report, and not because of the bug.

A title names the first function that means something. Who reports (``dump_stack``), who checks
(``kasan_*``, ``__might_sleep``), how the processor got there (``asm_exc_page_fault``), and what
everybody calls (``memcpy``, ``kfree``, ``mutex_lock``) would make one title of many bugs.
"""

from __future__ import annotations

from pytest_hil.crash.pattern import Pattern

_WHO_REPORTS = r"""
    _?_?dump_stack\w* show_stack\w* show_trace\w* show_regs\w* __show_regs dump_backtrace\w*
    unwind_backtrace walk_stackframe arch_stack_walk stack_trace_\w+ save_stack\w* __save_stack\w*
    print_address_description print_report end_report print_\w*bug\w* print_circular\w*
    print_bad_irq\w* print_irq_\w+ print_usage\w* print_deadlock\w* print_lock\w*
    print_unlock_imbalance\w* print_other_cpu_stall print_cpu_stall\w* print_trailer object_err
    slab_err slab_bug slab_pad_check check_bytes_and_report check_object check_slab on_freelist
    free_debug_processing alloc_debug_processing __slab_free __slab_alloc\w* ___slab_alloc
    free_to_partial_list bad_page\w* print_bad_\w+
    free_unref_page\w* free_pages?_prepare free_pcp\w*
    free_pages_check\w* check_free_page\w* check_new_page\w* __?free_pages\w* free_one_page panic
    vpanic panic_other_cpus_shutdown nmi_panic\w* check_panic_on_\w+ __warn\w* warn_slowpath\w*
    report_bug handle_bug __report_bug bug_handler do_error_trap do_trap\w* die die_addr __die\w*
    oops_\w+ no_context page_fault_oops kernelmode_fixup_or_oops __bad_area\w* bad_area\w*
    bad_mode\w* arm_notify_die arm64_notify_die arm64_notify_segfault __do_kernel_fault
    die_kernel_fault fault_handler mm_fault_error ubsan_\w+ __ubsan_\w+ handle_overflow
    val_to_string get_signed_val __stack_chk_fail warn_bogus_irq_restore debug_print_object
    __debug_object_init __debug_check_no_obj_freed debug_check_no_obj_freed debug_object_\w+
    fortify_panic __fortify_panic __fortify_report __fortify_str\w+ usercopy_abort cache_from_obj
    __check_object_size check_\w*_obj\w* __check_heap_object check_heap_object __bug_on\w*
    ___?might_sleep ___?might_resched __might_fault might_fault __cant_sleep __cant_migrate
    __schedule_bug do_task_dead check_preemption_disabled debug_smp_processor_id
    __this_cpu_preempt_check spin_bug spin_dump rwlock_bug do_raw_\w+ __spin_lock_debug dump_header
    oom_kill_process out_of_memory
    \w*invoke_oom rcu_dump_cpu_stacks\w* rcu_check_\w+ check_cpu_stall rcu_pending
    rcu_sched_clock_irq sched_show_task nmi_cpu_backtrace\w* nmi_trigger_cpumask_backtrace
    trigger_\w*backtrace\w* arch_trigger_\w+ watchdog_\w+ perf_event_overflow
    __perf_event_overflow check_hung\w* is_softlockup hung_task_panic __list_add_valid\w*
    __list_del_entry_valid\w* __list_add\w* __list_del\w* list_(?:add|del|move|splice)\w*
    refcount_\w+ __refcount_\w+ kref_\w+ kernfs_put kobject_(?:put|get|release|cleanup)
"""
_WHO_CHECKS = r"""
    _*kasan_\w+ __asan_\w+ __hwasan_\w+ hwasan_\w+ check_memory_region\w*
    check_region_inline\w* kmsan_\w+ __msan_\w+ kcsan_\w+ __kcsan_\w+ __tsan_\w+ kfence_\w+
    __kfence_\w+ lockdep_\w+ lock_acquire\w* __lock_acquire\w* lock_release\w* __lock_release\w*
    lock_is_held\w* mark_lock\w* mark_held_locks mark_usage validate_chain check_noncircular
    check_prev\w*_add check_deadlock check_irq_usage check_usage\w* check_wait_context valid_state
    register_lock_class assign_lock_key debug_check_no_locks_\w+ check_flags lock_downgrade
    lock_set_class reacquire_held_locks find_held_lock debug_lockdep\w* rcu_lockdep\w*
"""
_HOW_IT_GOT_THERE = r"""
    exc_\w+ asm_exc_\w+ asm_sysvec_\w+ sysvec_\w+ asm_common_interrupt common_interrupt
    error_entry error_exit page_fault async_page_fault do_async_page_fault \w*do_page_fault
    do_user_addr_fault do_kern_addr_fault general_protection do_general_protection invalid_op
    do_invalid_op divide_error do_divide_error double_fault do_double_fault df_debug nmi
    end_repeat_nmi default_do_nmi do_nmi nmi_handle\w* apic_timer_interrupt
    smp_apic_timer_interrupt local_apic_timer_interrupt ret_from_intr do_IRQ tick_\w+
    update_process_times hrtimer_\w+ __hrtimer_\w+ __run_hrtimer __sysvec_\w+ run_timer_softirq
    arch_timer_handler\w* handle_percpu_devid_irq generic_handle_\w+ __handle_domain_irq
    handle_domain_irq gic_handle_irq riscv_timer_interrupt riscv_intc_irq call_on_irq_stack
    do_interrupt_handler run_on_irqstack\w* __irq_svc __irq_usr el0?1?h?t?_\w+ el[01]_\w+
    do_mem_abort do_translation_fault do_sea do_undefinstr do_undef do_debug_exception do_el1_\w+
    brk_handler call_break_hook do_sp_pc_abort do_alignment_fault __dabt_svc __pabt_svc __und_svc
    __und_svc_fault do_DataAbort do_PrefetchAbort __und_fault do_undefinstr arm_undef\w*
    do_bad_area do_kernel_address_page_fault handle_exception ret_from_exception
    handle_kernel_stack_overflow do_irq irq_exit\w* __irq_exit\w* __do_softirq do_softirq\w*
    invoke_softirq handle_softirqs __die_if_kernel entry_\w+ do_syscall_\w+ ret_from_fork\w*
    __switch_to
"""
_WHAT_EVERYBODY_CALLS = r"""
    _?_?_?mem(?:cpy|set|move|cmp|chr|scan|chr_inv)\w*
    _?_?_?str[nls]?(?:cpy|len|cmp|cat|chr|str|sep|dup)\w*
    _?_?_?strrchr
    __pi_\w+ __arch_(?:clear|copy)\w+ fault_in_\w+ clear_page\w* copy_page\w* __clear_user\w*
    rep_movs\w* rep_stos\w* memdup_\w+ kmemdup\w* kstrdup\w* k[vz]?free\w* __kfree\w* kvfree\w*
    vfree __vunmap krealloc __krealloc kmalloc\w* __kmalloc\w* kzalloc\w* __do_kmalloc\w*
    kmem_cache_\w+ slab_\w+ __kmem_\w+ cache_\w+alloc\w* do_slab_free __alloc_pages\w*
    alloc_pages\w* __vmalloc\w* vmalloc\w* _?copy_(?:to|from)_(?:user|iter)\w* __copy_\w+
    raw_copy_\w+ copy_user_\w+ _copy_\w+ __get_user\w* __put_user\w* arch_atomic\w* atomic\w*
    _?find_(?:next|first)_\w+ queued_spin_\w+ native_queued_\w+ __pv_queued\w*
    _raw_(?:spin|read|write)_\w+ __raw_(?:spin|read|write)_\w+ _spin_\w+ arch_spin_\w+ native_\w+
    pv_native_\w+ __raw_callee_\w+ (?:__)?mutex_\w+ (?:ww|rt)_mutex\w* __ww_mutex\w*
    (?:__)?(?:down|up)(?:_(?:read|write|interruptible|killable|timeout|trylock|common|nested))*
    rwsem_\w+ rt_spin_\w+ (?:__)?rcu_read_(?:un)?lock\w* percpu_(?:down|up)\w*
    (?:io_)?schedule(?:_(?:timeout|hrtimeout|preempt|idle|user|tail)\w*)? __schedule\w*
    preempt_schedule\w* preempt_count_\w+ wait_for_\w*completion\w* __wait_for_\w*common
    do_wait_for_common wait_woken msleep\w* usleep_\w+ ssleep do_nanosleep __cond_resched\w*
    _cond_resched io_schedule\w* bit_wait\w* __wait_on_bit\w* out_of_line_wait_on_bit\w*
    __[cp]const_udelay __udelay __delay delay_(?:tsc|halt\w*|loop|mwaitx) udelay\w* __loop_delay
    arch_local_\w+ arch_irq\w* local_\w*irq\w* trace_hardirqs_\w+ trace_irq\w* cpu_relax rep_nop
    csd_lock_wait\w* smp_call_function\w* __flush_tlb\w* stack_depot\w* (?:__)?radix_tree_\w+
    xas_(?:load|start|descend)\w* rb_(?:insert|erase|next)\w* __rb_\w+
"""
_KNOWN = Pattern(
    "|".join(
        word
        for words in (_WHO_REPORTS, _WHO_CHECKS, _HOW_IT_GOT_THERE, _WHAT_EVERYBODY_CALLS)
        for word in words.split()
    )
)


def is_machinery(function: str) -> bool:
    """Whether a function says nothing of the bug."""
    return bool(_KNOWN.fullmatch(function))
