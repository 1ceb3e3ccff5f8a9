//! Input of `make demo`: a test that fails when the demo asks it to, so that there is a failed run
//! to hear of. By itself it passes.

#[test]
fn the_build_is_green() {
    assert!(std::env::var_os("KLAXON_DEMO_FAIL").is_none(), "broken on purpose, for the demo");
}
