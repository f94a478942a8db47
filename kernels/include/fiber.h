// Fibers: stacks of their own to run on, and switching between them; for `simt`.
//
// On x86-64 a switch saves the registers that a call must preserve, and nothing else. Elsewhere it
// is swapcontext, which also makes two system calls for the signal mask, and which
// AddressSanitizer wraps in clearing the shadow of the whole stack: many times slower.
#pragma once

#include <stddef.h>

#if !defined(__x86_64__)
#include <ucontext.h>
#endif
#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

namespace simt {

// Where a stack was left. Of a thread's own stack only the place is known, not the bounds, until
// switch_to has left it.
struct Context {
    const void *stack = nullptr;
    size_t bytes = 0;
#if defined(__x86_64__)
    void *top = nullptr;  // where the saved registers are
#else
    ucontext_t state;
#endif
};

#if defined(__x86_64__)
extern "C" void simt_switch_stack(void **from, void *to);
asm(R"(
    .text
    .type simt_switch_stack, @function
simt_switch_stack:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
    .size simt_switch_stack, .-simt_switch_stack
)");
constexpr int SAVED_REGISTERS = 6;

// Makes the first switch to `context` call `entry`, which must never return, on a new stack.
inline void prepare(Context &context, char *stack, size_t bytes, void (*entry)()) {
    context.stack = stack, context.bytes = bytes;
    // A function finds its return address 8 bytes below a multiple of 16; there is none here.
    void **top = reinterpret_cast<void **>(stack + bytes) - 2;
    top[1] = nullptr;
    top[0] = reinterpret_cast<void *>(entry);
    context.top = top - SAVED_REGISTERS;
}
#else
inline void prepare(Context &context, char *stack, size_t bytes, void (*entry)()) {
    context.stack = stack, context.bytes = bytes;
    getcontext(&context.state);
    context.state.uc_stack.ss_sp = stack;
    context.state.uc_stack.ss_size = bytes;
    context.state.uc_link = nullptr;
    makecontext(&context.state, entry, 0);
}
#endif

// Tells AddressSanitizer that this stack runs now, and learns from it the bounds of the one before.
inline void arrive(Context &before, void *fake_stack = nullptr) {
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(fake_stack, &before.stack, &before.bytes);
#endif
    (void)before, (void)fake_stack;
}

// Leaves `from` for `to`, and returns when `to` switches back. The entry function of a new stack
// begins with arrive().
inline void switch_to(Context &from, Context &to) {
    void *fake_stack = nullptr;
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_start_switch_fiber(&fake_stack, to.stack, to.bytes);
#endif
#if defined(__x86_64__)
    simt_switch_stack(&from.top, to.top);
#else
    swapcontext(&from.state, &to.state);
#endif
    arrive(to, fake_stack);
}

// To be called before a stack's memory is given back: functions that never ended left red zones.
inline void forget(const Context &context) {
#if defined(__SANITIZE_ADDRESS__)
    __asan_unpoison_memory_region(context.stack, context.bytes);
#endif
    (void)context;
}

}  // namespace simt
