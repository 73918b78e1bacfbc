//! Counts in sentences for people: the noun and the verb agree with the number.

use std::fmt::Display;

/// A number with its noun: `1 credential`, `0 credentials`, `2 credentials`. For nouns whose plural ends with an added `s`.
pub fn counted<N: Display + PartialEq + From<u8>>(n: N, noun: &str) -> String {
    let ending = if n == N::from(1) { "" } else { "s" };
    format!("{n} {noun}{ending}")
}

/// The word for one thing, or the word for any other number of them: `is` and `are`.
pub fn one_or<'w, N: PartialEq + From<u8>>(n: N, one: &'w str, several: &'w str) -> &'w str {
    if n == N::from(1) { one } else { several }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_thing_is_named_in_the_singular() {
        assert_eq!([counted(0_u64, "credential"), counted(1_u64, "credential")], ["0 credentials", "1 credential"]);
        assert_eq!(counted(2_usize, "live credential"), "2 live credentials");
        assert_eq!([0_u32, 1, 2].map(|n| one_or(n, "is", "are")), ["are", "is", "are"]);
    }
}
