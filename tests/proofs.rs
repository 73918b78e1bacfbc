//! A type is a proof: what must not happen does not compile. Each file says which step it tries to leave out.

#[test]
fn what_must_not_happen_does_not_compile() {
    let cases = trybuild::TestCases::new();
    cases.compile_fail("tests/compile_fail/*.rs");
}
