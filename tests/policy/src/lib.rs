//! Policies against engines that we did not write; see `tests/`.
