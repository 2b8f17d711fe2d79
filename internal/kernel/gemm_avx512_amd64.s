//go:build !noasm

#include "textflag.h"
#include "gemm_avx512_amd64.h"

// The float32 tiles of the AVX-512 tier. A row of the narrow ones is one register.

// A step of k of a row, then of four.

#define STEP(A, LO, HI) \
	VBROADCASTSS A, Z2;         \
	VFMADD231PS  Z0, Z2, LO;    \
	VFMADD231PS  Z1, Z2, HI

#define STEP4(P, A, B, C, D, E, F, G, H) \
	STEP((P), A, B);            \
	STEP((P)(R9*1), C, D);      \
	STEP((P)(R9*2), E, F);      \
	STEP((P)(R12*1), G, H);     \
	ADDQ R10, P

#define NARROW \
	VMOVUPS (DI), Z0; \
	ADDQ    R11, DI

#define NSTEP(A, LO) \
	VBROADCASTSS A, Z2;      \
	VFMADD231PS  Z0, Z2, LO

#define NLOAD4(P, A, B, C, D) \
	VMOVUPS (P), A;         \
	VMOVUPS (P)(R8*1), B;   \
	VMOVUPS (P)(R8*2), C;   \
	VMOVUPS (P)(R15*1), D

#define NSTEP4(P, A, B, C, D) \
	NSTEP((P), A);          \
	NSTEP((P)(R9*1), B);    \
	NSTEP((P)(R9*2), C);    \
	NSTEP((P)(R12*1), D);   \
	ADDQ R10, P

#define NSTORE4(P, A, B, C, D) \
	VMOVUPS A, (P);         \
	VMOVUPS B, (P)(R8*1);   \
	VMOVUPS C, (P)(R8*2);   \
	VMOVUPS D, (P)(R15*1)

// func tile12x32(t *tile)
//
// AX and BX are used up before the loop and made again after it. In the loop they ask
// for what comes next, a little at each step of k.
TEXT ·tile12x32(SB), NOSPLIT, $0-8
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
	STEP4(SI, Z8, Z9, Z10, Z11, Z12, Z13, Z14, Z15)
	STEP4(R13, Z16, Z17, Z18, Z19, Z20, Z21, Z22, Z23)
	STEP4(R14, Z24, Z25, Z26, Z27, Z28, Z29, Z30, Z31)
	DECQ  CX
	JNZ   loop
	LEAQ  (DX)(R8*4), AX
	STORE4(DX, Z8, Z9, Z10, Z11, Z12, Z13, Z14, Z15)
	STORE4(AX, Z16, Z17, Z18, Z19, Z20, Z21, Z22, Z23)
	LEAQ  (DX)(R8*8), BX
	STORE4(BX, Z24, Z25, Z26, Z27, Z28, Z29, Z30, Z31)
	VZEROUPPER
	RET

// func tile8x32(t *tile)
TEXT ·tile8x32(SB), NOSPLIT, $0-8
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
	STEP4(SI, Z8, Z9, Z10, Z11, Z12, Z13, Z14, Z15)
	STEP4(R13, Z16, Z17, Z18, Z19, Z20, Z21, Z22, Z23)
	DECQ  CX
	JNZ   loop
	STORE4(DX, Z8, Z9, Z10, Z11, Z12, Z13, Z14, Z15)
	STORE4(AX, Z16, Z17, Z18, Z19, Z20, Z21, Z22, Z23)
	VZEROUPPER
	RET

// func tile4x32(t *tile)
TEXT ·tile4x32(SB), NOSPLIT, $0-8
	ARGS
	JZ    zero
	LOAD4(DX, Z8, Z9, Z10, Z11, Z12, Z13, Z14, Z15)
	JMP   loop

zero:
	ZERO4(Z8, Z9, Z10, Z11)
	ZERO4(Z12, Z13, Z14, Z15)

loop:
	WIDE
	STEP4(SI, Z8, Z9, Z10, Z11, Z12, Z13, Z14, Z15)
	DECQ  CX
	JNZ   loop
	STORE4(DX, Z8, Z9, Z10, Z11, Z12, Z13, Z14, Z15)
	VZEROUPPER
	RET

// func tile2x32(t *tile)
TEXT ·tile2x32(SB), NOSPLIT, $0-8
	ARGS
	JZ    zero
	LOAD(0(DX), Z8, Z9)
	LOAD(0(DX)(R8*1), Z10, Z11)
	JMP   loop

zero:
	ZERO4(Z8, Z9, Z10, Z11)

loop:
	WIDE
	STEP((SI), Z8, Z9)
	STEP((SI)(R9*1), Z10, Z11)
	ADDQ  R10, SI
	DECQ  CX
	JNZ   loop
	STORE(0(DX), Z8, Z9)
	STORE(0(DX)(R8*1), Z10, Z11)
	VZEROUPPER
	RET

// func tile1x32(t *tile)
TEXT ·tile1x32(SB), NOSPLIT, $0-8
	ARGS
	JZ    zero
	LOAD(0(DX), Z8, Z9)
	JMP   loop

zero:
	VPXORD Z8, Z8, Z8
	VPXORD Z9, Z9, Z9

loop:
	VBROADCASTSS (SI), Z2
	VFMADD231PS  (DI), Z2, Z8
	VFMADD231PS  64(DI), Z2, Z9
	ADDQ  R10, SI
	ADDQ  R11, DI
	DECQ  CX
	JNZ   loop
	STORE(0(DX), Z8, Z9)
	VZEROUPPER
	RET

// func tile12x16(t *tile)
TEXT ·tile12x16(SB), NOSPLIT, $0-8
	ARGS
	JZ    zero
	NLOAD4(DX, Z8, Z9, Z10, Z11)
	NLOAD4(AX, Z12, Z13, Z14, Z15)
	NLOAD4(BX, Z16, Z17, Z18, Z19)
	JMP   loop

zero:
	ZERO4(Z8, Z9, Z10, Z11)
	ZERO4(Z12, Z13, Z14, Z15)
	ZERO4(Z16, Z17, Z18, Z19)
	PCALIGN $32

loop:
	NARROW
	NSTEP4(SI, Z8, Z9, Z10, Z11)
	NSTEP4(R13, Z12, Z13, Z14, Z15)
	NSTEP4(R14, Z16, Z17, Z18, Z19)
	DECQ  CX
	JNZ   loop
	NSTORE4(DX, Z8, Z9, Z10, Z11)
	NSTORE4(AX, Z12, Z13, Z14, Z15)
	NSTORE4(BX, Z16, Z17, Z18, Z19)
	VZEROUPPER
	RET

// func tile4x16(t *tile)
TEXT ·tile4x16(SB), NOSPLIT, $0-8
	ARGS
	JZ    zero
	NLOAD4(DX, Z8, Z9, Z10, Z11)
	JMP   loop

zero:
	ZERO4(Z8, Z9, Z10, Z11)

loop:
	NARROW
	NSTEP4(SI, Z8, Z9, Z10, Z11)
	DECQ  CX
	JNZ   loop
	NSTORE4(DX, Z8, Z9, Z10, Z11)
	VZEROUPPER
	RET

// func tile1x16(t *tile)
TEXT ·tile1x16(SB), NOSPLIT, $0-8
	ARGS
	JZ    zero
	VMOVUPS (DX), Z8
	JMP   loop

zero:
	VPXORD Z8, Z8, Z8

loop:
	NARROW
	NSTEP((SI), Z8)
	ADDQ  R10, SI
	DECQ  CX
	JNZ   loop
	VMOVUPS Z8, (DX)
	VZEROUPPER
	RET
