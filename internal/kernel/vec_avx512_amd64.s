//go:build !noasm

#include "textflag.h"

#define WIDE
#define VB 64
#define V0 Z0
#define V1 Z1
#define V2 Z2
#define V3 Z3
#define V4 Z4
#define V5 Z5
#define V6 Z6
#define V7 Z7
#define V8 Z8
#define V9 Z9
#define V10 Z10
#define V11 Z11
#define V12 Z12
#define V13 Z13
#define V14 Z14
#define V15 Z15
#define VPORD_ VPORD
#define VPANDD_ VPANDD

#define FN_dot ·dotAVX512
#define FN_dot3 ·dot3AVX512
#define FN_sum ·sumAVX512
#define FN_max ·maxAVX512
#define FN_sumSquares64 ·sumSquares64AVX512
#define FN_dot64 ·dot64AVX512
#define FN_add ·addAVX512
#define FN_sub ·subAVX512
#define FN_mul ·mulAVX512
#define FN_scale ·scaleAVX512
#define FN_axpy ·axpyAVX512
#define FN_exp ·expAVX512
#define FN_sigmoid ·sigmoidAVX512
#define FN_softcap ·softcapAVX512
#define FN_softcapBackward ·softcapBackwardAVX512
#define FN_softmaxBackward ·softmaxBackwardAVX512
#define FN_norm ·normAVX512
#define FN_normBackward ·normBackwardAVX512
#define FN_siluMul ·siluMulAVX512
#define FN_siluMulBackward ·siluMulBackwardAVX512
#define FN_geluMul ·geluMulAVX512
#define FN_geluMulBackward ·geluMulBackwardAVX512
#define FN_ropeHalves ·ropeHalvesAVX512
#define FN_ropePairs ·ropePairsAVX512
#define FN_f16ToF32 ·f16ToF32AVX512
#define FN_f32ToF16 ·f32ToF16AVX512
#define FN_bf16ToF32 ·bf16ToF32AVX512
#define FN_f32ToBF16 ·f32ToBF16AVX512
#define FN_mulAdd ·mulAddAVX512
#define FN_dotColumns ·dotColumnsAVX512
#define FN_axpyColumns ·axpyColumnsAVX512
#define FN_productColumns ·productColumnsAVX512
#define FN_rangeColumns ·rangeColumnsAVX512
#define FN_mixRows ·mixRowsAVX512
#define FN_squareColumns ·squareColumnsAVX512
#define FN_outside ·outsideAVX512
#define FN_adamW ·adamWAVX512

#include "vec_amd64.h"
#include "vec_exp_amd64.h"
#include "columns_amd64.h"
