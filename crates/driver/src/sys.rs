//! System calls that no library wraps.

/// The version of Landlock that this kernel has, 0 for none (see `landlock(7)`).
#[expect(unsafe_code, reason = "the version query has no safe wrapper")]
pub(crate) fn landlock_abi() -> u32 {
    const LANDLOCK_CREATE_RULESET_VERSION: u32 = 1;
    // SAFETY: a null attribute of size 0 with the version flag only asks for a number.
    let abi = unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            std::ptr::null::<u8>(),
            0,
            LANDLOCK_CREATE_RULESET_VERSION,
        )
    };
    u32::try_from(abi).unwrap_or(0)
}
