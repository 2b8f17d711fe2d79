//go:build !noasm

#include "textflag.h"

#define WIDE
#define V0 Z0
#define V1 Z1
#define V2 Z2
#define V3 Z3
#define V4 Z4
#define V5 Z5
#define V6 Z6
#define V7 Z7

#define FN_q4_0 ·decodeQ4_0_AVX512
#define FN_q4_1 ·decodeQ4_1_AVX512
#define FN_q5_0 ·decodeQ5_0_AVX512
#define FN_q5_1 ·decodeQ5_1_AVX512
#define FN_q8_0 ·decodeQ8_0_AVX512
#define FN_iq4_nl ·decodeIQ4NLAVX512
#define FN_mxfp4 ·decodeMXFP4_AVX512
#define FN_q2_k ·decodeQ2KAVX512
#define FN_q3_k ·decodeQ3KAVX512
#define FN_q4_k ·decodeQ4KAVX512
#define FN_q5_k ·decodeQ5KAVX512
#define FN_q6_k ·decodeQ6KAVX512
#define FN_iq4_xs ·decodeIQ4XSAVX512
#define FN_lookup ·lookupAVX512
#define FN_int8 ·decodeINT8AVX512

#include "simd_amd64.h"
#include "simd_k_amd64.h"
