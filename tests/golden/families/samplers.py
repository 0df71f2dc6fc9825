"""Samplers as plain loops in f64: the formulas of Karras et al. 2022 (algorithm 2 without churn) and of Lu et al. 2022 (DPM-Solver++(2M)).

`estimate(x, sigma)` is the picture that the network sees in x; every loop returns x after each step.
"""
import math


def slope(x, sigma, estimate):
    return (x - estimate(x, sigma)) / sigma


def euler(x, sigmas, estimate):
    after = []
    for now, then in zip(sigmas, sigmas[1:]):
        x = x + slope(x, now, estimate) * (then - now)
        after.append(x)
    return after


def heun(x, sigmas, estimate):
    after = []
    for now, then in zip(sigmas, sigmas[1:]):
        here = slope(x, now, estimate)
        ahead = x + here * (then - now)
        # There is no slope at σ = 0: the last step is Euler's.
        x = x + (here + slope(ahead, then, estimate)) / 2 * (then - now) if then else ahead
        after.append(x)
    return after


def dpmpp_2m(x, sigmas, estimate):
    """Steps in λ = −ln σ, straight through the last two estimates."""
    after, before = [], None
    for i, (now, then) in enumerate(zip(sigmas, sigmas[1:])):
        found = aim = estimate(x, now)
        if then and before is not None:
            ratio = math.log(now / then) / math.log(sigmas[i - 1] / now)
            aim = found + ratio / 2 * (found - before)
        x = then / now * x + (1 - then / now) * aim
        before = found
        after.append(x)
    return after


SAMPLERS = {"euler": euler, "heun": heun, "dpmpp_2m": dpmpp_2m}
