//go:build !noasm

#include "textflag.h"
#include "gemm_avx512_amd64.h"

// The tiles in bf16, and what makes pairs; see gemm_bf16.go. Go's assembler does not know
// the instructions of AVX512_BF16, which are written as bytes here:
//
//	62 | ~R ~X ~B ~R' 0 010 | 0 ~vvvv 1 pp | 0 10 0 ~V' 000 | opcode | 11 reg rm
//
// DOT is VDPBF16PS Z(rm), Z2, Z(reg) for a sum of Z8 to Z31 and rm 0 or 1: PRE is 72 for
// sums from Z8, E2 from Z16 and 62 from Z24, and MOD is C0 + 8·(number of the sum mod 8) + rm.
#define DOT(PRE, MOD) \
	LONG $(0x486E0062+((PRE)<<8)); \
	WORD $(0x52+((MOD)<<8))

// BSTEP is a step of k of a row whose sums are the MODth and the one after, BSTEP4 of four
// rows from a pointer, with all eight registers of PRE.
#define BSTEP(A, PRE, MOD) \
	VBROADCASTSS A, Z2;    \
	DOT(PRE, MOD);         \
	DOT(PRE, MOD+9)

#define BSTEP4(P, PRE) \
	BSTEP((P), PRE, 0xC0);           \
	BSTEP((P)(R9*1), PRE, 0xD0);     \
	BSTEP((P)(R9*2), PRE, 0xE0);     \
	BSTEP((P)(R12*1), PRE, 0xF0);    \
	ADDQ R10, P

// func btile12x32(t *tile)
TEXT ·btile12x32(SB), NOSPLIT, $0-8
	ARGS
	JZ    zero
	LOAD4(DX, Z8, Z9, Z10, Z11, Z12, Z13, Z14, Z15)
	LOAD4(AX, Z16, Z17, Z18, Z19, Z20, Z21, Z22, Z23)
	LOAD4(BX, Z24, Z25, Z26, Z27, Z28, Z29, Z30, Z31)
	JMP   start

zero:
	ZERO4(Z8, Z9, Z10, Z11)
	ZERO4(Z12, Z13, Z14, Z15)
	ZERO4(Z16, Z17, Z18, Z19)
	ZERO4(Z20, Z21, Z22, Z23)
	ZERO4(Z24, Z25, Z26, Z27)
	ZERO4(Z28, Z29, Z30, Z31)

start:
	LEAQ (BX)(R8*4), BX
	AHEAD4(BX)
	AHEAD4(BX)
	AHEAD4(BX)
	MOVQ t+0(FP), BX
	MOVQ 144(BX), AX
	MOVQ 120(BX), BX
	PCALIGN $32

loop:
	WIDE
	PREFETCHT1 (BX)
	ADDQ AX, BX
	BSTEP4(SI, 0x72)
	BSTEP4(R13, 0xE2)
	BSTEP4(R14, 0x62)
	DECQ  CX
	JNZ   loop
	LEAQ  (DX)(R8*4), AX
	STORE4(DX, Z8, Z9, Z10, Z11, Z12, Z13, Z14, Z15)
	STORE4(AX, Z16, Z17, Z18, Z19, Z20, Z21, Z22, Z23)
	LEAQ  (DX)(R8*8), BX
	STORE4(BX, Z24, Z25, Z26, Z27, Z28, Z29, Z30, Z31)
	VZEROUPPER
	RET

// func btile8x32(t *tile)
TEXT ·btile8x32(SB), NOSPLIT, $0-8
	ARGS
	JZ    zero
	LOAD4(DX, Z8, Z9, Z10, Z11, Z12, Z13, Z14, Z15)
	LOAD4(AX, Z16, Z17, Z18, Z19, Z20, Z21, Z22, Z23)
	JMP   loop

zero:
	ZERO4(Z8, Z9, Z10, Z11)
	ZERO4(Z12, Z13, Z14, Z15)
	ZERO4(Z16, Z17, Z18, Z19)
	ZERO4(Z20, Z21, Z22, Z23)
	PCALIGN $32

loop:
	WIDE
	BSTEP4(SI, 0x72)
	BSTEP4(R13, 0xE2)
	DECQ  CX
	JNZ   loop
	STORE4(DX, Z8, Z9, Z10, Z11, Z12, Z13, Z14, Z15)
	STORE4(AX, Z16, Z17, Z18, Z19, Z20, Z21, Z22, Z23)
	VZEROUPPER
	RET

// func btile4x32(t *tile)
TEXT ·btile4x32(SB), NOSPLIT, $0-8
	ARGS
	JZ    zero
	LOAD4(DX, Z8, Z9, Z10, Z11, Z12, Z13, Z14, Z15)
	JMP   loop

zero:
	ZERO4(Z8, Z9, Z10, Z11)
	ZERO4(Z12, Z13, Z14, Z15)

loop:
	WIDE
	BSTEP4(SI, 0x72)
	DECQ  CX
	JNZ   loop
	STORE4(DX, Z8, Z9, Z10, Z11, Z12, Z13, Z14, Z15)
	VZEROUPPER
	RET

// func btile2x32(t *tile)
TEXT ·btile2x32(SB), NOSPLIT, $0-8
	ARGS
	JZ    zero
	LOAD(0(DX), Z8, Z9)
	LOAD(0(DX)(R8*1), Z10, Z11)
	JMP   loop

zero:
	ZERO4(Z8, Z9, Z10, Z11)

loop:
	WIDE
	BSTEP((SI), 0x72, 0xC0)
	BSTEP((SI)(R9*1), 0x72, 0xD0)
	ADDQ  R10, SI
	DECQ  CX
	JNZ   loop
	STORE(0(DX), Z8, Z9)
	STORE(0(DX)(R8*1), Z10, Z11)
	VZEROUPPER
	RET

// func btile1x32(t *tile)
TEXT ·btile1x32(SB), NOSPLIT, $0-8
	ARGS
	JZ    zero
	LOAD(0(DX), Z8, Z9)
	JMP   loop

zero:
	VPXORD Z8, Z8, Z8
	VPXORD Z9, Z9, Z9

loop:
	WIDE
	BSTEP((SI), 0x72, 0xC0)
	ADDQ  R10, SI
	DECQ  CX
	JNZ   loop
	STORE(0(DX), Z8, Z9)
	VZEROUPPER
	RET

// ROUND2 is VCVTNE2PS2BF16 Z0, Z1, Z2: Z0 to the lower half of Z2, Z1 to the upper.
#define ROUND2 \
	LONG $0x4877F262; \
	WORD $0xD072

// func pairs32(dst, src *float32, blocks int)
TEXT ·pairs32(SB), NOSPLIT, $0-24
	MOVQ dst+0(FP), DI
	MOVQ src+8(FP), SI
	MOVQ blocks+16(FP), CX

loop:
	VMOVUPS (SI), Z0
	VMOVUPS 64(SI), Z1
	ROUND2
	VMOVUPS Z2, (DI)
	ADDQ    $128, SI
	ADDQ    $64, DI
	DECQ    CX
	JNZ     loop
	VZEROUPPER
	RET

// The words of two rows of 16, one after another, in turn.
DATA zipOrder<>+0(SB)/8, $0x0011000100100000
DATA zipOrder<>+8(SB)/8, $0x0013000300120002
DATA zipOrder<>+16(SB)/8, $0x0015000500140004
DATA zipOrder<>+24(SB)/8, $0x0017000700160006
DATA zipOrder<>+32(SB)/8, $0x0019000900180008
DATA zipOrder<>+40(SB)/8, $0x001B000B001A000A
DATA zipOrder<>+48(SB)/8, $0x001D000D001C000C
DATA zipOrder<>+56(SB)/8, $0x001F000F001E000E
GLOBL zipOrder<>(SB), RODATA|NOPTR, $64

// MASK makes MASKS of N columns: the first 16 and the next 16 of 32.
#define MASK(N, LOW, HIGH) \
	MOVQ    N, CX;             \
	MOVQ    $1, AX;            \
	SHLQ    CX, AX;            \
	DECQ    AX;                \
	KMOVW   AX, LOW;           \
	SHRQ    $16, AX;           \
	KMOVW   AX, HIGH

// func zip32(dst, src *float32, width, stride, pairs, n int)
TEXT ·zip32(SB), NOSPLIT, $0-48
	MOVQ dst+0(FP), DI
	MOVQ src+8(FP), SI
	MOVQ width+16(FP), R8
	MOVQ stride+24(FP), R9
	MASK(n+40(FP), K1, K2)
	MASK(R8, K3, K4)
	MOVQ pairs+32(FP), CX
	SHLQ $2, R8
	SHLQ $2, R9
	VMOVUPS zipOrder<>(SB), Z3

loop:
	VMOVUPS.Z (SI), K1, Z0
	VMOVUPS.Z (SI)(R9*1), K1, Z1
	ROUND2
	VPERMW  Z2, Z3, Z2
	VMOVUPS Z2, K3, (DI)
	VMOVUPS.Z 64(SI), K2, Z0
	VMOVUPS.Z 64(SI)(R9*1), K2, Z1
	ROUND2
	VPERMW  Z2, Z3, Z2
	VMOVUPS Z2, K4, 64(DI)
	LEAQ    (SI)(R9*2), SI
	ADDQ    R8, DI
	DECQ    CX
	JNZ     loop
	VZEROUPPER
	RET

#define PEAK8(PRE) \
	DOT(PRE, 0xC0); \
	DOT(PRE, 0xC8); \
	DOT(PRE, 0xD0); \
	DOT(PRE, 0xD8); \
	DOT(PRE, 0xE0); \
	DOT(PRE, 0xE8); \
	DOT(PRE, 0xF0); \
	DOT(PRE, 0xF8)

// func peakBF16(n int)
//
// n times 24 instructions on registers, of 32 multiply-adds each.
TEXT ·peakBF16(SB), NOSPLIT, $0-8
	MOVQ n+0(FP), CX
	VPXORD Z0, Z0, Z0
	VPXORD Z2, Z2, Z2
	ZERO4(Z8, Z9, Z10, Z11)
	ZERO4(Z12, Z13, Z14, Z15)
	ZERO4(Z16, Z17, Z18, Z19)
	ZERO4(Z20, Z21, Z22, Z23)
	ZERO4(Z24, Z25, Z26, Z27)
	ZERO4(Z28, Z29, Z30, Z31)
	PCALIGN $32

loop:
	PEAK8(0x72)
	PEAK8(0xE2)
	PEAK8(0x62)
	DECQ CX
	JNZ  loop
	VZEROUPPER
	RET
