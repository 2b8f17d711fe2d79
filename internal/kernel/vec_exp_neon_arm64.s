//go:build !noasm

#include "textflag.h"
#include "neon_arm64.h"

// The vector kernels that take exponentials, four elements at a time: n is a multiple
// of 4. Constants are in V16 up, in the order of vecConst.

#define LOG2E 16
#define MAGIC 17
#define LN2HI 18
#define LN2LO 19
#define EXP2 20
#define EXP3 21
#define EXP4 22
#define EXP5 23
#define EXP6 24
#define LOW 25
#define HIGH 26
#define ONE 27
#define BIAS 28

#define GELU1 29
#define GELU3 30
#define GELU9 31

#define SMALL 29
#define TWO 30
#define SIGN 31
#define TANH1 11
#define TANH2 12
#define TANH3 13
#define TANH4 14
#define TANH5 15

#define CONSTANT(V) VLD1R.P 4(R8), [V.S4]

#define CONSTANTS \
	MOVD $·vecConst(SB), R8 \
	CONSTANT(V16)           \
	CONSTANT(V17)           \
	CONSTANT(V18)           \
	CONSTANT(V19)           \
	CONSTANT(V20)           \
	CONSTANT(V21)           \
	CONSTANT(V22)           \
	CONSTANT(V23)           \
	CONSTANT(V24)           \
	CONSTANT(V25)           \
	CONSTANT(V26)           \
	CONSTANT(V27)           \
	CONSTANT(V28)

#define GELUCONSTANTS \
	CONSTANTS     \
	CONSTANT(V29) \
	CONSTANT(V30) \
	CONSTANT(V31)

#define TANHCONSTANTS \
	CONSTANTS     \
	ADD $12, R8   \
	CONSTANT(V29) \
	CONSTANT(V30) \
	CONSTANT(V31) \
	CONSTANT(V11) \
	CONSTANT(V12) \
	CONSTANT(V13) \
	CONSTANT(V14) \
	CONSTANT(V15)

#define FOURS(n) \
	MOVD n, R5 \
	LSR  $2, R5

#define AGAIN(loop) \
	SUBS $1, R5 \
	BNE  loop

// EXP: q = Exp(x). Clobbers x, t, u.
#define EXP(x, t, q, u) \
	FMAX4(LOW, x, x)   \
	FMIN4(HIGH, x, x)  \
	FMUL4(LOG2E, x, t) \
	FADD4(MAGIC, t, t) \
	FSUB4(MAGIC, t, q) \
	FMUL4(LN2HI, q, u) \
	FSUB4(u, x, x)     \
	FMUL4(LN2LO, q, u) \
	FSUB4(u, x, x)     \
	FMUL4(EXP6, x, u)  \
	FADD4(EXP5, u, u)  \
	FMUL4(x, u, u)     \
	FADD4(EXP4, u, u)  \
	FMUL4(x, u, u)     \
	FADD4(EXP3, u, u)  \
	FMUL4(x, u, u)     \
	FADD4(EXP2, u, u)  \
	FMUL4(x, x, q)     \
	FMUL4(u, q, u)     \
	FADD4(x, u, u)     \
	FADD4(ONE, u, u)   \
	SUB4(MAGIC, t, t)  \
	SSHR4(1, t, q)     \
	SUB4(q, t, t)      \
	ADD4(BIAS, q, q)   \
	SHL4(23, q, q)     \
	FMUL4(q, u, u)     \
	ADD4(BIAS, t, t)   \
	SHL4(23, t, t)     \
	FMUL4(t, u, q)

// SIGMOID: q = Sigmoid(x). Keeps x, clobbers a, t, u.
#define SIGMOID(x, a, t, q, u) \
	FABS4(x, a)      \
	FNEG4(a, a)      \
	EXP(a, t, q, u)  \
	FADD4(ONE, q, u) \
	FCMLTZ4(x, t)    \
	BSL16(ONE, q, t) \
	FDIV4(u, t, q)

// TANH: q = Tanh(x). Keeps x, clobbers a, t, u, s, m.
#define TANH(x, a, t, q, u, s, m) \
	FABS4(x, a)         \
	FCMGT4(a, SMALL, m) \
	FMUL4(a, a, t)      \
	FMUL4(TANH5, t, s)  \
	FADD4(TANH4, s, s)  \
	FMUL4(t, s, s)      \
	FADD4(TANH3, s, s)  \
	FMUL4(t, s, s)      \
	FADD4(TANH2, s, s)  \
	FMUL4(t, s, s)      \
	FADD4(TANH1, s, s)  \
	FMUL4(t, s, s)      \
	FMUL4(a, s, s)      \
	FADD4(a, s, s)      \
	FADD4(a, a, a)      \
	EXP(a, t, q, u)     \
	FADD4(ONE, q, q)    \
	FDIV4(q, TWO, t)    \
	FSUB4(t, ONE, q)    \
	BSL16(q, s, m)      \
	AND16(SIGN, x, t)   \
	ORR16(t, m, q)

// func expNEON(dst, x *float32, n int, shift float32)
TEXT ·expNEON(SB), NOSPLIT, $0-28
	MOVD  dst+0(FP), R0
	MOVD  x+8(FP), R1
	FOURS(n+16(FP))
	FMOVS shift+24(FP), F5
	VDUP  V5.S[0], V5.S4
	CONSTANTS

loop:
	FMOVQ.P 16(R1), F0
	FSUB4(5, 0, 0)
	EXP(0, 1, 2, 3)
	FMOVQ.P F2, 16(R0)
	AGAIN(loop)
	RET

// func sigmoidNEON(dst, x *float32, n int)
TEXT ·sigmoidNEON(SB), NOSPLIT, $0-24
	MOVD dst+0(FP), R0
	MOVD x+8(FP), R1
	FOURS(n+16(FP))
	CONSTANTS

loop:
	FMOVQ.P 16(R1), F0
	SIGMOID(0, 1, 2, 3, 4)
	FMOVQ.P F3, 16(R0)
	AGAIN(loop)
	RET

// func softcapNEON(y, x *float32, n int, cap float32)
TEXT ·softcapNEON(SB), NOSPLIT, $0-28
	MOVD  y+0(FP), R0
	MOVD  x+8(FP), R1
	FOURS(n+16(FP))
	FMOVS cap+24(FP), F7
	VDUP  V7.S[0], V7.S4
	TANHCONSTANTS

loop:
	FMOVQ.P 16(R1), F0
	FDIV4(7, 0, 0)
	TANH(0, 1, 2, 3, 4, 5, 6)
	FMUL4(7, 3, 3)
	FMOVQ.P F3, 16(R0)
	AGAIN(loop)
	RET

// func siluMulNEON(y, gate, up *float32, n int)
TEXT ·siluMulNEON(SB), NOSPLIT, $0-32
	MOVD y+0(FP), R0
	MOVD gate+8(FP), R1
	MOVD up+16(FP), R2
	FOURS(n+24(FP))
	CONSTANTS

loop:
	FMOVQ.P 16(R1), F0
	FMOVQ.P 16(R2), F5
	SIGMOID(0, 1, 2, 3, 4)
	FMUL4(3, 0, 0)
	FMUL4(5, 0, 0)
	FMOVQ.P F0, 16(R0)
	AGAIN(loop)
	RET

// func siluMulBackwardNEON(dgate, dup, dy, gate, up *float32, n int)
TEXT ·siluMulBackwardNEON(SB), NOSPLIT, $0-48
	MOVD dgate+0(FP), R0
	MOVD dup+8(FP), R1
	MOVD dy+16(FP), R2
	MOVD gate+24(FP), R3
	MOVD up+32(FP), R4
	FOURS(n+40(FP))
	CONSTANTS

loop:
	FMOVQ.P 16(R3), F0
	FMOVQ.P 16(R2), F5
	FMOVQ.P 16(R4), F6
	SIGMOID(0, 1, 2, 3, 4)
	FMUL4(3, 0, 0)   // a
	FMUL4(6, 5, 6)   // dy*up
	FMUL4(0, 5, 5)
	FSUB4(3, ONE, 1)
	FMUL4(1, 0, 0)
	FADD4(3, 0, 0)
	FMUL4(0, 6, 6)
	FMOVQ.P F5, 16(R1)
	FMOVQ.P F6, 16(R0)
	AGAIN(loop)
	RET

// func geluMulNEON(y, gate, up *float32, n int)
TEXT ·geluMulNEON(SB), NOSPLIT, $0-32
	MOVD y+0(FP), R0
	MOVD gate+8(FP), R1
	MOVD up+16(FP), R2
	FOURS(n+24(FP))
	GELUCONSTANTS

loop:
	FMOVQ.P 16(R1), F0
	FMOVQ.P 16(R2), F6
	FMUL4(0, 0, 5)
	FMUL4(GELU3, 5, 5)
	FADD4(GELU1, 5, 5)
	FMUL4(0, 5, 5)
	SIGMOID(5, 1, 2, 3, 4)
	FMUL4(3, 0, 0)
	FMUL4(6, 0, 0)
	FMOVQ.P F0, 16(R0)
	AGAIN(loop)
	RET

// func geluMulBackwardNEON(dgate, dup, dy, gate, up *float32, n int)
TEXT ·geluMulBackwardNEON(SB), NOSPLIT, $0-48
	MOVD dgate+0(FP), R0
	MOVD dup+8(FP), R1
	MOVD dy+16(FP), R2
	MOVD gate+24(FP), R3
	MOVD up+32(FP), R4
	FOURS(n+40(FP))
	GELUCONSTANTS

loop:
	FMOVQ.P 16(R3), F0
	FMOVQ.P 16(R2), F8
	FMOVQ.P 16(R4), F6
	FMUL4(0, 0, 7)
	FMUL4(GELU3, 7, 5)
	FADD4(GELU1, 5, 5)
	FMUL4(0, 5, 5)
	SIGMOID(5, 1, 2, 3, 4)
	FMUL4(3, 0, 0)     // a
	FMUL4(6, 8, 6)     // dy*up
	FMUL4(0, 8, 8)
	FSUB4(3, ONE, 1)
	FMUL4(1, 0, 0)
	FMUL4(GELU9, 7, 7)
	FADD4(GELU1, 7, 7)
	FMUL4(7, 0, 0)
	FADD4(3, 0, 0)
	FMUL4(0, 6, 6)
	FMOVQ.P F8, 16(R1)
	FMOVQ.P F6, 16(R0)
	AGAIN(loop)
	RET
