/* Says a line on the UART at 0x40004000 (Arm's CMSDK), then sends back what it gets. */
    .syntax unified
    .thumb
    .section .vectors, "a"
    .word 0x20010000, start
    .text
    .thumb_func
start:
    ldr r0, =0x40004000
    movs r1, #3
    str r1, [r0, #8]
    ldr r2, =text
say:
    ldrb r3, [r2], #1
    cbz r3, echo
    bl put
    b say
echo:
    ldr r1, [r0, #4]
    tst r1, #2
    beq echo
    ldr r3, [r0]
    bl put
    b echo
put:
    ldr r1, [r0, #4]
    tst r1, #1
    bne put
    str r3, [r0]
    bx lr
text: .asciz "firmware is up\n"
