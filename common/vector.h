/*
 * VECTOR_LOOPS before a function: its loops over arrays are made with vector instructions, in one version for each
 * level of the processor, chosen when the program starts. Only the order of independent operations changes and nothing
 * is fused, so results are the same on every machine, bit for bit. Without effect for other compilers and under the
 * sanitizers.
 */
#ifndef SG_VECTOR_H
#define SG_VECTOR_H

#if defined(__GNUC__) && !defined(__clang__) && defined(__x86_64__) && !defined(__SANITIZE_ADDRESS__) &&               \
    !defined(__SANITIZE_THREAD__)
#define VECTOR_LOOPS                                                                                                   \
    __attribute__((target_clones("avx512f", "avx2", "default"), optimize("O3", "fp-contract=off"), noinline))
#else
#define VECTOR_LOOPS
#endif

#endif
