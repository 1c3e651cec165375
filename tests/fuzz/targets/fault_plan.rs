//! A fault plan is refused with a reason, or survives a round trip.

#![no_main]

use libfuzzer_sys::fuzz_target;
use ringlift::server::FaultPlan;

fuzz_target!(|text: &str| match FaultPlan::parse(text) {
    Ok(plan) => {
        let written = toml::to_string(&plan).expect("what was read can be written");
        assert_eq!(FaultPlan::parse(&written).as_ref(), Ok(&plan), "{written}");
    }
    Err(error) => assert!(error.to_string().len() > "the fault plan cannot be read: ".len()),
});
