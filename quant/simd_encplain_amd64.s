//go:build !noasm

#include "textflag.h"

// The encoders without a search, with AVX2 in both tiers: what a block's scale is made of, and
// codes under given scales. All do the operations of the Go form; maxima do not depend on
// an order, sums keep it.

// Constants, in the order of plainConst: rows of 32 bytes.
#define ABS    0(R8)   // 0x7fffffff
#define BYTES  32(R8)  // 0xff
#define ORDER  64(R8)  // words 0 4 1 5 2 6 3 7
#define HALF   96(R8)  // the largest float below one half
#define EIGHTS 128(R8) // 8

// MAX8: X0 = the largest of the eight integers of Y0. Clobbers X1.
#define MAX8 \
	VEXTRACTI128 $1, Y0, X1 \
	VPMAXSD X1, X0, X0      \
	VPSHUFD $0x4e, X0, X1   \
	VPMAXSD X1, X0, X0      \
	VPSHUFD $0xb1, X0, X1   \
	VPMAXSD X1, X0, X0

// func largestBits(x *float32, n int) uint32: the largest magnitude of n > 0 values, a
// multiple of 8, as bits.
TEXT ·largestBits(SB), NOSPLIT, $0-20
	MOVQ x+0(FP), SI
	MOVQ n+8(FP), CX
	LEAQ ·plainConst(SB), R8
	VMOVDQU ABS, Y2
	VPXOR Y0, Y0, Y0
loop:
	VPAND   (SI), Y2, Y1
	VPMAXSD Y1, Y0, Y0
	ADDQ $32, SI
	SUBQ $8, CX
	JG   loop
	MAX8
	VMOVD X0, AX
	MOVL AX, ret+16(FP)
	VZEROUPPER
	RET

// func blockMaxima(dst, x *float32, blocks, size int): the largest magnitude of each block
// of size values, a multiple of 8.
TEXT ·blockMaxima(SB), NOSPLIT, $0-32
	MOVQ dst+0(FP), DI
	MOVQ x+8(FP), SI
	MOVQ blocks+16(FP), CX
	LEAQ ·plainConst(SB), R8
	VMOVDQU ABS, Y2
block:
	MOVQ size+24(FP), R9
	VPXOR Y0, Y0, Y0
loop:
	VPAND   (SI), Y2, Y1
	VPMAXSD Y1, Y0, Y0
	ADDQ $32, SI
	SUBQ $8, R9
	JG   loop
	MAX8
	VMOVD X0, (DI)
	ADDQ $4, DI
	DECQ CX
	JNE  block
	VZEROUPPER
	RET

// func blockTops(dst, x *float32, blocks int): of each block of 32 values the first of the
// largest magnitude; zero if all are.
TEXT ·blockTops(SB), NOSPLIT, $0-24
	MOVQ dst+0(FP), DI
	MOVQ x+8(FP), SI
	MOVQ blocks+16(FP), CX
	LEAQ ·plainConst(SB), R8
	VMOVDQU ABS, Y2
block:
	VPAND (SI), Y2, Y4
	VPAND 32(SI), Y2, Y5
	VPAND 64(SI), Y2, Y6
	VPAND 96(SI), Y2, Y7
	VPMAXSD Y4, Y5, Y0
	VPMAXSD Y6, Y7, Y1
	VPMAXSD Y1, Y0, Y0
	MAX8
	VMOVD X0, R10
	VPBROADCASTD X0, Y0
	VPCMPEQD Y0, Y4, Y4
	VPCMPEQD Y0, Y5, Y5
	VPCMPEQD Y0, Y6, Y6
	VPCMPEQD Y0, Y7, Y7
	VMOVMSKPS Y4, AX
	VMOVMSKPS Y5, DX
	SHLL $8, DX
	ORL  DX, AX
	VMOVMSKPS Y6, DX
	SHLL $16, DX
	ORL  DX, AX
	VMOVMSKPS Y7, DX
	SHLL $24, DX
	ORL  DX, AX
	BSFL AX, AX
	MOVL (SI)(AX*4), AX
	TESTL R10, R10
	CMOVLEQ R10, AX
	MOVL AX, (DI)
	ADDQ $128, SI
	ADDQ $4, DI
	DECQ CX
	JNE  block
	VZEROUPPER
	RET

// EXTREME: X0 = op over the 32 values at SI. Clobbers Y1.
#define EXTREME(op) \
	VMOVUPS (SI), Y0        \
	VMOVUPS 64(SI), Y1      \
	op 32(SI), Y0, Y0       \
	op 96(SI), Y1, Y1       \
	op Y1, Y0, Y0           \
	VEXTRACTF128 $1, Y0, X1 \
	op X1, X0, X0           \
	VPSHUFD $0x4e, X0, X1   \
	op X1, X0, X0           \
	VPSHUFD $0xb1, X0, X1   \
	op X1, X0, X0

// func blockRanges(lows, highs, x *float32, blocks int): the least and the greatest of
// each block of 32 values; a zero has any sign.
TEXT ·blockRanges(SB), NOSPLIT, $0-32
	MOVQ lows+0(FP), DI
	MOVQ highs+8(FP), DX
	MOVQ x+16(FP), SI
	MOVQ blocks+24(FP), CX
block:
	EXTREME(VMINPS)
	VMOVSS X0, (DI)
	EXTREME(VMAXPS)
	VMOVSS X0, (DX)
	ADDQ $128, SI
	ADDQ $4, DI
	ADDQ $4, DX
	DECQ CX
	JNE  block
	VZEROUPPER
	RET

// PACK: Y0 = the lowest bytes of Y0 to Y3, in order. Y15 is BYTES, Y14 ORDER.
#define PACK \
	VPAND Y15, Y0, Y0     \
	VPAND Y15, Y1, Y1     \
	VPAND Y15, Y2, Y2     \
	VPAND Y15, Y3, Y3     \
	VPACKUSDW Y1, Y0, Y0  \
	VPACKUSDW Y3, Y2, Y2  \
	VPACKUSWB Y2, Y0, Y0  \
	VPERMD Y0, Y14, Y0

// TRUNC: v = the integer part of (values at off - Y8)*Y9 + Y10.
#define TRUNC(off, v) \
	VMOVUPS off(SI), v  \
	VSUBPS  Y8, v, v    \
	VMULPS  Y9, v, v    \
	VADDPS  Y10, v, v   \
	VCVTTPS2DQ v, v

// func truncCodes(codes *byte, x, ids, lows *float32, blocks int, add float32, top int): of
// each block of 32 values the codes (x - low)*id + add, cut to bytes, at most top.
TEXT ·truncCodes(SB), NOSPLIT, $0-56
	MOVQ codes+0(FP), DI
	MOVQ x+8(FP), SI
	MOVQ ids+16(FP), R9
	MOVQ lows+24(FP), R10
	MOVQ blocks+32(FP), CX
	VBROADCASTSS add+40(FP), Y10
	MOVQ top+48(FP), AX
	VMOVQ AX, X11
	VPBROADCASTB X11, Y11
	LEAQ ·plainConst(SB), R8
	VMOVDQU BYTES, Y15
	VMOVDQU ORDER, Y14
block:
	VBROADCASTSS (R9), Y9
	VBROADCASTSS (R10), Y8
	TRUNC(0, Y0)
	TRUNC(32, Y1)
	TRUNC(64, Y2)
	TRUNC(96, Y3)
	PACK
	VPMINSB Y11, Y0, Y0
	VMOVDQU Y0, (DI)
	ADDQ $128, SI
	ADDQ $32, DI
	ADDQ $4, R9
	ADDQ $4, R10
	DECQ CX
	JNE  block
	VZEROUPPER
	RET

// NEAR: v = the values at off times Y9, rounded, halves away from zero. Y10 is HALF, Y11
// its complement of ABS. Clobbers Y12.
#define NEAR(off, v) \
	VMULPS off(SI), Y9, v \
	VANDPS v, Y11, Y12    \
	VORPS  Y10, Y12, Y12  \
	VADDPS Y12, v, v      \
	VCVTTPS2DQ v, v

// func nearCodes(codes *byte, stride int, x, ids *float32, blocks, size int): of each block
// of size values, a multiple of 32, the bytes round(x*id). The codes of blocks are stride
// bytes apart.
TEXT ·nearCodes(SB), NOSPLIT, $0-48
	MOVQ codes+0(FP), DX
	MOVQ x+16(FP), SI
	MOVQ ids+24(FP), R9
	MOVQ blocks+32(FP), CX
	LEAQ ·plainConst(SB), R8
	VMOVDQU BYTES, Y15
	VMOVDQU ORDER, Y14
	VMOVUPS HALF, Y10
	VPCMPEQD Y11, Y11, Y11
	VPSLLD $31, Y11, Y11
block:
	VBROADCASTSS (R9), Y9
	MOVQ DX, DI
	MOVQ size+40(FP), R10
loop:
	NEAR(0, Y0)
	NEAR(32, Y1)
	NEAR(64, Y2)
	NEAR(96, Y3)
	PACK
	VMOVDQU Y0, (DI)
	ADDQ $128, SI
	ADDQ $32, DI
	SUBQ $32, R10
	JG   loop
	ADDQ stride+8(FP), DX
	ADDQ $4, R9
	DECQ CX
	JNE  block
	VZEROUPPER
	RET

// E2M1: c = the codes of the eight values at off: how many of the thresholds Y0 to Y6 each
// magnitude is above, and 8 if the value is negative and that is not 0. Clobbers Y13, Y14.
#define E2M1(off, c) \
	VANDPS off(SI), Y15, Y14   \
	VCMPPS $30, Y0, Y14, c     \
	VCMPPS $30, Y1, Y14, Y13   \
	VPADDD Y13, c, c           \
	VCMPPS $30, Y2, Y14, Y13   \
	VPADDD Y13, c, c           \
	VCMPPS $30, Y3, Y14, Y13   \
	VPADDD Y13, c, c           \
	VCMPPS $30, Y4, Y14, Y13   \
	VPADDD Y13, c, c           \
	VCMPPS $30, Y5, Y14, Y13   \
	VPADDD Y13, c, c           \
	VCMPPS $30, Y6, Y14, Y13   \
	VPADDD Y13, c, c           \
	VMOVUPS off(SI), Y14       \
	VPSRAD $31, Y14, Y14       \
	VPXOR  Y13, Y13, Y13       \
	VPCMPGTD c, Y13, Y13       \
	VPAND  Y13, Y14, Y14       \
	VPAND  EIGHTS, Y14, Y14    \
	VPSUBD c, Y14, c

// THRESHOLDS: Y0 to Y6 = the thresholds at R10 times the scale at R9.
#define THRESHOLDS \
	VBROADCASTSS (R9), Y14      \
	VMULPS (R10), Y14, Y0       \
	VMULPS 32(R10), Y14, Y1     \
	VMULPS 64(R10), Y14, Y2     \
	VMULPS 96(R10), Y14, Y3     \
	VMULPS 128(R10), Y14, Y4    \
	VMULPS 160(R10), Y14, Y5    \
	VMULPS 192(R10), Y14, Y6

// func nibbles32(dst *byte, x, scales, thresholds *float32, blocks int): the 16 bytes of each
// MXFP4 block, 17 bytes apart.
TEXT ·nibbles32(SB), NOSPLIT, $0-40
	MOVQ dst+0(FP), DI
	MOVQ x+8(FP), SI
	MOVQ scales+16(FP), R9
	MOVQ thresholds+24(FP), R10
	MOVQ blocks+32(FP), CX
	LEAQ ·plainConst(SB), R8
	VMOVDQU ABS, Y15
block:
	THRESHOLDS
	E2M1(0, Y7)
	E2M1(32, Y8)
	E2M1(64, Y9)
	E2M1(96, Y10)
	VPSLLD $4, Y9, Y9
	VPSLLD $4, Y10, Y10
	VPOR Y9, Y7, Y7
	VPOR Y10, Y8, Y8
	VPACKUSDW Y8, Y7, Y7
	VPACKUSWB Y7, Y7, Y7
	VMOVDQU ORDER, Y8
	VPERMD Y7, Y8, Y7
	VMOVDQU X7, (DI)
	ADDQ $128, SI
	ADDQ $17, DI
	ADDQ $4, R9
	DECQ CX
	JNE  block
	VZEROUPPER
	RET

// func nibbles16(dst *byte, x, scales, thresholds *float32, blocks int): the nibbles of each
// NVFP4 block, 32 bytes after four of scales.
TEXT ·nibbles16(SB), NOSPLIT, $0-40
	MOVQ dst+0(FP), DI
	MOVQ x+8(FP), SI
	MOVQ scales+16(FP), R9
	MOVQ thresholds+24(FP), R10
	MOVQ blocks+32(FP), CX
	LEAQ ·plainConst(SB), R8
	VMOVDQU ABS, Y15
block:
	ADDQ $4, DI
	MOVQ $4, R11
part:
	THRESHOLDS
	E2M1(0, Y7)
	E2M1(32, Y8)
	VPSLLD $4, Y8, Y8
	VPOR Y8, Y7, Y7
	VPACKUSDW Y7, Y7, Y7
	VPACKUSWB Y7, Y7, Y7
	VEXTRACTI128 $1, Y7, X8
	VMOVD X7, (DI)
	VMOVD X8, 4(DI)
	ADDQ $64, SI
	ADDQ $8, DI
	ADDQ $4, R9
	DECQ R11
	JNE  part
	DECQ CX
	JNE  block
	VZEROUPPER
	RET

// func signBits(dst *byte, stride int, x *float32, blocks int): of each block of 128 values
// the bits of those that are not negative; blocks are stride bytes apart.
TEXT ·signBits(SB), NOSPLIT, $0-32
	MOVQ dst+0(FP), DI
	MOVQ stride+8(FP), DX
	MOVQ x+16(FP), SI
	MOVQ blocks+24(FP), CX
	VXORPS Y1, Y1, Y1
block:
	XORQ R9, R9
loop:
	VMOVUPS (SI), Y0
	VCMPPS $29, Y1, Y0, Y0
	VMOVMSKPS Y0, AX
	MOVB AX, (DI)(R9*1)
	ADDQ $32, SI
	INCQ R9
	CMPQ R9, $16
	JLT  loop
	ADDQ DX, DI
	DECQ CX
	JNE  block
	VZEROUPPER
	RET

// func magnitudes(dst, x *float32): the sums of the magnitudes of four blocks of 128 values.
TEXT ·magnitudes(SB), NOSPLIT, $0-16
	MOVQ dst+0(FP), DI
	MOVQ x+8(FP), SI
	LEAQ ·plainConst(SB), R8
	VMOVDQU ABS, X8
	VXORPS X0, X0, X0
	VXORPS X1, X1, X1
	VXORPS X2, X2, X2
	VXORPS X3, X3, X3
	MOVQ $128, CX
loop:
	VMOVSS (SI), X4
	VMOVSS 512(SI), X5
	VMOVSS 1024(SI), X6
	VMOVSS 1536(SI), X7
	VANDPS X8, X4, X4
	VANDPS X8, X5, X5
	VANDPS X8, X6, X6
	VANDPS X8, X7, X7
	VADDSS X4, X0, X0
	VADDSS X5, X1, X1
	VADDSS X6, X2, X2
	VADDSS X7, X3, X3
	ADDQ $4, SI
	DECQ CX
	JNE  loop
	VMOVSS X0, (DI)
	VMOVSS X1, 4(DI)
	VMOVSS X2, 8(DI)
	VMOVSS X3, 12(DI)
	VZEROUPPER
	RET
