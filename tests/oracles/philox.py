r"""Philox4x32-10: J. K. Salmon, M. A. Moraes, R. O. Dror, D. E. Shaw, "Parallel Random Numbers: As Easy as 1, 2, 3",
SC 2011.

    round:  (c0, c1, c2, c3), (k0, k1)  ->  (hi(M1 c2) ^ c1 ^ k0,  lo(M1 c2),  hi(M0 c0) ^ c3 ^ k1,  lo(M0 c0))
    between rounds:  k0 += W0, k1 += W1  (mod 2^32)

Conventions: hi and lo are the upper and lower 32 bits of a 64-bit product. The first round uses the key as given;
ten rounds, so nine additions. Words are numbered as in the authors' Random123. W0 is the golden ratio, W1 is
sqrt(3) - 1, both in 32-bit fixed point.

counter is four, key two integers in [0, 2^32). Returns a tuple of four.
"""

M0, M1 = 0xD2511F53, 0xCD9E8D57
W0, W1 = 0x9E3779B9, 0xBB67AE85
WORD = 2**32


def philox4x32(counter, key, rounds=10):
    c0, c1, c2, c3 = (int(word) for word in counter)
    k0, k1 = (int(word) for word in key)
    for index in range(rounds):
        if index > 0:
            k0, k1 = (k0 + W0) % WORD, (k1 + W1) % WORD
        hi0, lo0 = divmod(M0 * c0, WORD)
        hi1, lo1 = divmod(M1 * c2, WORD)
        c0, c1, c2, c3 = hi1 ^ c1 ^ k0, lo1, hi0 ^ c3 ^ k1, lo0
    return c0, c1, c2, c3
