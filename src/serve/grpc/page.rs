//! Pages of a list: newest first, stable while things come and go.

use crate::limits;
use crate::refusal::Refusal;
use crate::seq::Seq;

/// One page that was asked for.
#[derive(Clone, Copy, Debug)]
pub struct Page {
    size: usize,
    /// Only what is older than this.
    before: Option<Seq>,
}

impl Page {
    /// From a request's fields. The token is what the page before gave.
    pub fn from(size: i32, token: &str) -> Result<Page, Refusal> {
        let size = match size {
            0 => limits::PAGE_DEFAULT,
            n => usize::try_from(n).ok().filter(|n| *n <= limits::PAGE).ok_or_else(|| {
                Refusal::field("page_size", format!("must be 1 to {}; 0 means {}", limits::PAGE, limits::PAGE_DEFAULT))
            })?,
        };
        let before = match token {
            "" => None,
            token => Some(token.parse().map_err(|_| Refusal::field("page_token", "is not one that a page before gave"))?),
        };
        Ok(Page { size, before })
    }

    /// The newest of `all` that fit, after the page before, and the next page's token. Each comes with a seq of its own.
    pub fn newest<T>(&self, all: impl Iterator<Item = (Seq, T)>, mut fits: impl FnMut(&T) -> bool) -> (Vec<T>, String) {
        let mut found: Vec<(Seq, T)> = all.filter(|(seq, t)| self.before.is_none_or(|b| *seq < b) && fits(t)).collect();
        found.sort_by(|a, b| b.0.cmp(&a.0));
        let more = found.len() > self.size;
        found.truncate(self.size);
        let next = if more { found.last().map_or_else(String::new, |(seq, _)| seq.to_string()) } else { String::new() };
        (found.into_iter().map(|(_, t)| t).collect(), next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_meet_and_do_not_overlap() {
        let all: Vec<(Seq, u64)> = (1..=25).filter_map(|n| Some((Seq::from_u64(n)?, n))).collect();
        let (mut seen, mut token) = (Vec::new(), String::new());
        loop {
            let page = Page::from(10, &token).unwrap();
            let (found, next) = page.newest(all.iter().copied(), |n| *n != 7);
            seen.extend(found);
            token = next;
            if token.is_empty() {
                break;
            }
        }
        assert_eq!(seen, (1..=25).rev().filter(|n| *n != 7).collect::<Vec<_>>());
        assert!(Page::from(-1, "").is_err() && Page::from(0, "x").is_err() && Page::from(1_000_000, "").is_err());
    }
}
