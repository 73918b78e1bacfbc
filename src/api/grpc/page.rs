//! Pages of a list: newest first, stable while entries are added and removed.

use std::collections::BTreeSet;

use prost::Message;

use mayfly_base::limits;
use mayfly_base::refusal::{Error, Refusal};
use mayfly_ledger::commit::sha256;
use mayfly_proto::mayfly::v1 as pb;
use mayfly_verify::seq::Seq;

/// A requested page.
#[derive(Clone, Copy, Debug)]
pub struct PageRequest {
    size: usize,
    /// Only entries older than this one.
    before: Option<Seq>,
}

impl PageRequest {
    /// Parses the page fields of a request. The token is the one that the previous page returned.
    pub fn from(size: i32, token: &str) -> Result<PageRequest, Refusal> {
        let size = match size {
            0 => limits::PAGE_DEFAULT,
            n => usize::try_from(n).ok().filter(|n| *n <= limits::PAGE).ok_or_else(|| {
                Refusal::field("page_size", format!("must be 1 to {}; 0 means {}", limits::PAGE, limits::PAGE_DEFAULT))
            })?,
        };
        let before = match token {
            "" => None,
            token => Some(token.parse().map_err(|_| Refusal::field("page_token", "is not a token returned by an earlier page"))?),
        };
        Ok(PageRequest { size, before })
    }

    /// The number of rows per page.
    pub(super) fn size(&self) -> usize {
        self.size
    }

    /// The newest entries of `all` that match, after the previous page, and the next page's token. Each entry has a unique sequence number.
    pub fn newest<T>(&self, all: impl Iterator<Item = (Seq, T)>, mut fits: impl FnMut(&T) -> bool) -> (Vec<T>, String) {
        let mut found: Vec<(Seq, T)> = all.filter(|(seq, t)| self.before.is_none_or(|b| *seq < b) && fits(t)).collect();
        found.sort_by_key(|(seq, _)| std::cmp::Reverse(*seq));
        let more = found.len() > self.size;
        found.truncate(self.size);
        let next = if more { found.last().map_or_else(String::new, |(seq, _)| seq.to_string()) } else { String::new() };
        (found.into_iter().map(|(_, t)| t).collect(), next)
    }
}

/// The newest matching entries, found by going once through all entries in pieces: only the keys of one page are held in memory.
pub struct Newest<K: Ord + Copy> {
    page: PageRequest,
    found: BTreeSet<(Seq, K)>,
    total: u64,
}

impl<K: Ord + Copy> Newest<K> {
    /// Collects this page.
    pub fn of(page: PageRequest) -> Newest<K> {
        Newest { page, found: BTreeSet::new(), total: 0 }
    }

    /// Adds a matching entry.
    pub fn offer(&mut self, seq: Seq, key: K) {
        self.total += 1;
        if self.page.before.is_some_and(|before| seq >= before) {
            return;
        }
        self.found.insert((seq, key));
        // One entry beyond the page shows whether there is another page.
        if self.found.len() > self.page.size + 1 {
            self.found.pop_first();
        }
    }

    /// The number of matching entries.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// The rows of the page, newest first, limited by the page size and `limits::PAGE_BYTES`, and the next page's token. Entries that `row`
    /// no longer finds are left out.
    pub fn rows<M: Message>(&self, mut row: impl FnMut(K) -> Option<M>) -> (Vec<M>, String) {
        let mut all = self.found.iter().rev();
        let (mut rows, mut bytes, mut last) = (Vec::new(), 0, None);
        for (seq, key) in all.by_ref().take(self.page.size) {
            if let Some(row) = row(*key) {
                bytes += row.encoded_len();
                if bytes > limits::PAGE_BYTES && !rows.is_empty() {
                    // The row that does not fit becomes the first of the next page.
                    return (rows, last.map_or_else(String::new, Seq::to_string));
                }
                rows.push(row);
            }
            last = Some(seq);
        }
        let next = last.filter(|_| all.next().is_some()).map_or_else(String::new, Seq::to_string);
        (rows, next)
    }
}

/// Builds a list, and builds it again with fewer rows while its rows exceed `limits::PAGE_BYTES`. For lists that operators fill, which are
/// nearly always small.
pub async fn within_bytes<Q, A, F>(ask: &Q, list: impl Fn(Q) -> F) -> Result<A, Error>
where
    Q: Sized + PageSize,
    A: Rows,
    F: Future<Output = Result<A, Error>>,
{
    let mut answer = list(ask.clone()).await?;
    // Each iteration has fewer rows; one row is a page whatever its size.
    while let Some(fit) = fitting(&answer.sizes()) {
        answer = list(ask.of_size(fit)).await?;
    }
    Ok(answer)
}

/// As many rows as fit into one answer, for a list that has no pages.
pub fn fit<M: Message>(rows: impl Iterator<Item = M>) -> Vec<M> {
    let mut bytes = 0;
    let fits = rows.take_while(|row| {
        bytes += row.encoded_len();
        bytes <= limits::PAGE_BYTES
    });
    fits.collect()
}

/// The number of rows that fit, or `None` if all fit.
fn fitting(sizes: &[usize]) -> Option<i32> {
    let mut bytes = 0;
    let fit = sizes.iter().take_while(|size| {
        bytes += **size;
        bytes <= limits::PAGE_BYTES
    });
    let fit = fit.count().max(1);
    (fit < sizes.len()).then(|| i32::try_from(fit).unwrap_or(1))
}

/// A request with a page size.
pub trait PageSize: Clone {
    /// The same request with another page size.
    fn of_size(&self, size: i32) -> Self;
}

/// An answer that is a list.
pub trait Rows {
    /// The encoded size of each row.
    fn sizes(&self) -> Vec<usize>;
}

macro_rules! lists {
    ($($request:ident -> $answer:ident.$rows:ident),* $(,)?) => {$(
        impl PageSize for pb::$request {
            fn of_size(&self, size: i32) -> Self {
                pb::$request { page_size: size, ..self.clone() }
            }
        }

        impl Rows for pb::$answer {
            fn sizes(&self) -> Vec<usize> {
                self.$rows.iter().map(Message::encoded_len).collect()
            }
        }
    )*};
}

lists!(
    ListApprovalsRequest -> ListApprovalsResponse.approvals,
    ListBindingsRequest -> ListBindingsResponse.bindings,
    ListBreakGlassRequest -> ListBreakGlassResponse.break_glass,
    ListFollowersRequest -> ListFollowersResponse.followers,
    ListKeysRequest -> ListKeysResponse.keys,
    ListLeasesRequest -> ListLeasesResponse.leases,
    ListSecretsRequest -> ListSecretsResponse.secrets,
    ListLocksRequest -> ListLocksResponse.locks,
    ListRulesRequest -> ListRulesResponse.rules,
    ListTrustDomainsRequest -> ListTrustDomainsResponse.trust_domains,
    ListUpstreamsRequest -> ListUpstreamsResponse.upstreams,
);

/// One page of a list by name: the entries after the last name of the previous page.
#[derive(Clone, Debug)]
pub struct NamePageRequest {
    size: usize,
    after: Option<String>,
    /// Digest of the request: a token is valid for the same request only.
    of: String,
}

impl NamePageRequest {
    /// Parses the page fields of a request.
    pub fn of(size: i32, token: &str, request: &impl Paged) -> Result<NamePageRequest, Refusal> {
        let PageRequest { size, .. } = PageRequest::from(size, "")?;
        let (of, foreign) = (same_request(request), foreign_token);
        let after = match token {
            "" => None,
            token => {
                let text = data_encoding::BASE64URL_NOPAD.decode(token.as_bytes()).map_err(|_| foreign())?;
                let text = String::from_utf8(text).map_err(|_| foreign())?;
                let name = text.strip_prefix(&*of).and_then(|rest| rest.strip_prefix(':')).ok_or_else(foreign)?;
                Some(name.to_owned())
            }
        };
        Ok(NamePageRequest { size, after, of })
    }

    /// The first entries of `all` by name, after the previous page, and the next page's token.
    pub fn take<T>(&self, mut all: Vec<(String, T)>) -> (Vec<T>, String) {
        all.retain(|(name, _)| self.after.as_ref().is_none_or(|after| name > after));
        all.sort_by(|a, b| a.0.cmp(&b.0));
        let more = all.len() > self.size;
        all.truncate(self.size);
        let last = all.last().filter(|_| more).map(|(name, _)| format!("{}:{name}", self.of));
        let next = last.map_or_else(String::new, |text| data_encoding::BASE64URL_NOPAD.encode(text.as_bytes()));
        (all.into_iter().map(|(_, t)| t).collect(), next)
    }
}

/// A digest that is equal for two requests which differ in their page fields only.
pub fn same_request(request: &impl Paged) -> String {
    data_encoding::HEXLOWER.encode(sha256(&request.bare()).get(..8).unwrap_or_default())
}

/// The refusal for a token that was issued for another request.
pub fn foreign_token() -> Refusal {
    Refusal::field("page_token", "is not a token returned by an earlier page of the same request")
}

/// A request for a page of a list.
pub trait Paged {
    /// The encoded request without its page fields.
    fn bare(&self) -> Vec<u8>;
}

macro_rules! paged {
    ($($request:ident),*) => {$(
        impl Paged for pb::$request {
            fn bare(&self) -> Vec<u8> {
                let mut bare = self.clone();
                (bare.page_size, bare.page_token) = (0, String::new());
                bare.encode_to_vec()
            }
        }
    )*};
}

paged!(
    SearchRecordsRequest,
    ListKeysRequest,
    ListTrustDomainsRequest,
    ListUpstreamsRequest,
    ListBindingsRequest,
    ListSecretsRequest,
    ListCredentialsRequest
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_by_name_is_good_for_its_own_request_only() {
        let all = || (10..35).map(|n| (n.to_string(), n)).collect::<Vec<_>>();
        let request = pb::ListUpstreamsRequest { environment: "dev".into(), ..Default::default() };
        let (mut seen, mut token) = (Vec::new(), String::new());
        loop {
            let (found, next) = NamePageRequest::of(10, &token, &request).unwrap().take(all());
            seen.extend(found);
            token = next;
            if token.is_empty() {
                break;
            }
            let other = pb::ListUpstreamsRequest { environment: "prod".into(), ..Default::default() };
            assert_eq!(NamePageRequest::of(10, &token, &other).unwrap_err().field, Some("page_token"));
            let larger = pb::ListUpstreamsRequest { page_size: 500, ..request.clone() };
            assert!(NamePageRequest::of(500, &token, &larger).is_ok(), "another size is the same request");
        }
        assert_eq!(seen, (10..35).collect::<Vec<_>>());
        assert!(NamePageRequest::of(10, "x", &request).is_err() && NamePageRequest::of(-1, "", &request).is_err());
    }

    #[test]
    fn pages_meet_and_do_not_overlap() {
        let all: Vec<(Seq, u64)> = (1..=25).filter_map(|n| Some((Seq::from_u64(n)?, n))).collect();
        let (mut seen, mut token) = (Vec::new(), String::new());
        loop {
            let page = PageRequest::from(10, &token).unwrap();
            let (found, next) = page.newest(all.iter().copied(), |n| *n != 7);
            let mut newest = Newest::of(page);
            all.iter().filter(|(_, n)| *n != 7).for_each(|(seq, n)| newest.offer(*seq, *n));
            let row = |n| Some(pb::HoldEvent { seq: n, ..Default::default() });
            let (rows, after) = newest.rows(row);
            let rows: Vec<u64> = rows.iter().map(|row| row.seq).collect();
            assert_eq!(((rows, after), newest.total()), ((found.clone(), next.clone()), 24));
            seen.extend(found);
            token = next;
            if token.is_empty() {
                break;
            }
        }
        assert_eq!(seen, (1..=25).rev().filter(|n| *n != 7).collect::<Vec<_>>());
        assert!(
            PageRequest::from(-1, "").is_err() && PageRequest::from(0, "x").is_err() && PageRequest::from(1_000_000, "").is_err()
        );
    }

    /// A row of at least `bytes` bytes.
    fn row(n: u64, bytes: usize) -> pb::HoldEvent {
        pb::HoldEvent { seq: n, task_id: "x".repeat(bytes) }
    }

    #[test]
    fn a_page_ends_where_its_bytes_do_and_the_next_one_goes_on_there() {
        let large = limits::PAGE_BYTES / 3;
        let (mut seen, mut token, mut pages) = (Vec::new(), String::new(), 0);
        loop {
            let mut newest = Newest::of(PageRequest::from(10, &token).unwrap());
            (1..=20).for_each(|n| newest.offer(Seq::from_u64(n).unwrap(), n));
            // One row is larger than a page, and one entry was removed meanwhile.
            let of = |n| (n != 15).then(|| row(n, if n == 12 { 5 * limits::PAGE_BYTES } else { large }));
            let (rows, next) = newest.rows(of);
            assert!(rows.len() == 1 || rows.iter().map(Message::encoded_len).sum::<usize>() <= limits::PAGE_BYTES);
            assert!(!rows.is_empty());
            seen.extend(rows.iter().map(|row| row.seq));
            (token, pages) = (next, pages + 1);
            if token.is_empty() {
                break;
            }
        }
        assert_eq!(seen, (1..=20).rev().filter(|n| *n != 15).collect::<Vec<_>>());
        assert!((9..=12).contains(&pages), "{pages}");
    }

    #[tokio::test]
    async fn a_list_that_is_too_large_is_made_again_with_fewer_rows() {
        let asked = std::cell::RefCell::new(Vec::new());
        let ask = pb::ListRulesRequest { page_size: 100, ..Default::default() };
        let answer = within_bytes(&ask, |q: pb::ListRulesRequest| {
            asked.borrow_mut().push(q.page_size);
            let rule = || pb::Rule { reason: "x".repeat(limits::PAGE_BYTES / 4), ..Default::default() };
            let rules: Vec<pb::Rule> = (0..q.page_size).map(|_| rule()).collect();
            async move { Ok(pb::ListRulesResponse { rules, next_page_token: "more".to_owned() }) }
        });
        assert_eq!(answer.await.unwrap().rules.len(), 3);
        assert_eq!(*asked.borrow(), [100, 3]);
        assert_eq!(fitting(&[5 * limits::PAGE_BYTES]), None, "one row is a page");
        assert_eq!(fitting(&[5 * limits::PAGE_BYTES, 1]), Some(1));
    }
}
