//go:build !noasm

#include "textflag.h"
#include "../internal/kernel/neon_arm64.h"

// FLOATS makes sixteen float32, in V16 to V19, of the signed bytes in Vn. V20 and V21 are used.
#define FLOATS(n) \
	SXTL_B(n, 20)   \
	SXTL2_B(n, 21)  \
	SXTL_H(20, 16)  \
	SXTL2_H(20, 17) \
	SXTL_H(21, 18)  \
	SXTL2_H(21, 19) \
	SCVTF4(16, 16)  \
	SCVTF4(17, 17)  \
	SCVTF4(18, 18)  \
	SCVTF4(19, 19)

#define TIMES(m) \
	FMUL4(m, 16, 16) \
	FMUL4(m, 17, 17) \
	FMUL4(m, 18, 18) \
	FMUL4(m, 19, 19)
#define PLUS(m) \
	FADD4(m, 16, 16) \
	FADD4(m, 17, 17) \
	FADD4(m, 18, 18) \
	FADD4(m, 19, 19)
#define MINUS(m) \
	FSUB4(m, 16, 16) \
	FSUB4(m, 17, 17) \
	FSUB4(m, 18, 18) \
	FSUB4(m, 19, 19)
#define STORE16 VST1.P [V16.S4, V17.S4, V18.S4, V19.S4], 64(R0)

// HALF spreads the half at R1, which goes on, over V as float32.
#define HALF(n, V) \
	VLD1R.P 2(R1), [V.H8] \
	FCVTL_H(n, n)

// func decodeQ8_0NEON(dst *float32, src *byte, blocks int)
TEXT ·decodeQ8_0NEON(SB), NOSPLIT, $0-24
	MOVD dst+0(FP), R0
	MOVD src+8(FP), R1
	MOVD blocks+16(FP), R5

loop:
	HALF(0, V0)
	VLD1.P 32(R1), [V2.B16, V3.B16]
	FLOATS(2)
	TIMES(0)
	STORE16
	FLOATS(3)
	TIMES(0)
	STORE16
	SUBS $1, R5
	BNE  loop
	RET

// func decodeQ4_0NEON(dst *float32, src *byte, blocks int)
TEXT ·decodeQ4_0NEON(SB), NOSPLIT, $0-24
	MOVD  dst+0(FP), R0
	MOVD  src+8(FP), R1
	MOVD  blocks+16(FP), R5
	VMOVI $15, V14.B16
	VMOVI $8, V15.B16

loop:
	HALF(0, V0)
	VLD1.P 16(R1), [V2.B16]
	VUSHR  $4, V2.B16, V3.B16
	VAND   V14.B16, V2.B16, V2.B16
	VSUB   V15.B16, V2.B16, V2.B16
	VSUB   V15.B16, V3.B16, V3.B16
	FLOATS(2)
	TIMES(0)
	STORE16
	FLOATS(3)
	TIMES(0)
	STORE16
	SUBS   $1, R5
	BNE    loop
	RET

// func decodeQ4_1NEON(dst *float32, src *byte, blocks int)
TEXT ·decodeQ4_1NEON(SB), NOSPLIT, $0-24
	MOVD  dst+0(FP), R0
	MOVD  src+8(FP), R1
	MOVD  blocks+16(FP), R5
	VMOVI $15, V14.B16

loop:
	HALF(0, V0)
	HALF(1, V1)
	VLD1.P 16(R1), [V2.B16]
	VUSHR  $4, V2.B16, V3.B16
	VAND   V14.B16, V2.B16, V2.B16
	FLOATS(2)
	TIMES(0)
	PLUS(1)
	STORE16
	FLOATS(3)
	TIMES(0)
	PLUS(1)
	STORE16
	SUBS   $1, R5
	BNE    loop
	RET

// func nibbles32NEON(dst *float32, src *byte, d1, m1, d2, m2 float32)
//
// The 32 low nibbles times d1 less m1, then the high ones times d2 less m2.
TEXT ·nibbles32NEON(SB), NOSPLIT, $0-32
	MOVD  dst+0(FP), R0
	MOVD  src+8(FP), R1
	FMOVS d1+16(FP), F4
	FMOVS m1+20(FP), F5
	FMOVS d2+24(FP), F6
	FMOVS m2+28(FP), F7
	VDUP  V4.S[0], V4.S4
	VDUP  V5.S[0], V5.S4
	VDUP  V6.S[0], V6.S4
	VDUP  V7.S[0], V7.S4
	VMOVI $15, V14.B16
	VLD1  (R1), [V0.B16, V1.B16]
	VUSHR $4, V0.B16, V2.B16
	VUSHR $4, V1.B16, V3.B16
	VAND  V14.B16, V0.B16, V0.B16
	VAND  V14.B16, V1.B16, V1.B16
	FLOATS(0)
	TIMES(4)
	MINUS(5)
	STORE16
	FLOATS(1)
	TIMES(4)
	MINUS(5)
	STORE16
	FLOATS(2)
	TIMES(6)
	MINUS(7)
	STORE16
	FLOATS(3)
	TIMES(6)
	MINUS(7)
	STORE16
	RET

// SCALED writes sixteen codes of six bits in Vn, less 32, times element e of Vm at R0 + off.
#define SCALED(n, V, m, e, off) \
	VSUB  V15.B16, V.B16, V.B16 \
	FLOATS(n)                   \
	FMULE(m, e, 16, 16)         \
	FMULE(m, e, 17, 17)         \
	FMULE(m, e, 18, 18)         \
	FMULE(m, e, 19, 19)         \
	FSTPQ (F16, F17), off(R0)   \
	FSTPQ (F18, F19), (off+32)(R0)

// SIX does sixteen bytes of each half of the low nibbles and of the high pairs of bits.
#define SIX(e, f) \
	VLD1  (R1), [V0.B16]           \
	ADD   $32, R1, R4              \
	VLD1  (R4), [V1.B16]           \
	VLD1  (R2), [V2.B16]           \
	VAND  V14.B16, V0.B16, V4.B16  \
	VAND  V14.B16, V1.B16, V5.B16  \
	VUSHR $4, V0.B16, V6.B16       \
	VUSHR $4, V1.B16, V7.B16       \
	VSHL  $4, V2.B16, V8.B16       \
	VAND  V13.B16, V8.B16, V8.B16  \
	VORR  V8.B16, V4.B16, V4.B16   \
	VSHL  $2, V2.B16, V8.B16       \
	VAND  V13.B16, V8.B16, V8.B16  \
	VORR  V8.B16, V5.B16, V5.B16   \
	VAND  V13.B16, V2.B16, V8.B16  \
	VORR  V8.B16, V6.B16, V6.B16   \
	VUSHR $2, V2.B16, V8.B16       \
	VAND  V13.B16, V8.B16, V8.B16  \
	VORR  V8.B16, V7.B16, V7.B16   \
	SCALED(4, V4, 30, e, 0)        \
	SCALED(5, V5, 30, f, 128)      \
	SCALED(6, V6, 31, e, 256)      \
	SCALED(7, V7, 31, f, 384)

// func sixBits128NEON(dst *float32, low, high *byte, scales *[8]float32)
TEXT ·sixBits128NEON(SB), NOSPLIT, $0-32
	MOVD  dst+0(FP), R0
	MOVD  low+8(FP), R1
	MOVD  high+16(FP), R2
	MOVD  scales+24(FP), R3
	VLD1  (R3), [V30.S4, V31.S4]
	VMOVI $0x30, V13.B16
	VMOVI $15, V14.B16
	VMOVI $32, V15.B16
	SIX(0, 2)
	ADD   $16, R1
	ADD   $16, R2
	ADD   $64, R0
	SIX(1, 3)
	RET
