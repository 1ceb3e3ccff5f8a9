//! Which addresses may be dialled: a pure function, with its table of cases beside it in `policy/tests.rs`;
//! `url_tests.rs` has the table of URLs, in every spelling that their parser accepts.
//!
//! Refused is what the IANA special-purpose address registries (RFC 6890 and its successors) do not
//! call globally reachable, multicast, and the public addresses that clouds serve metadata on.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// Whether an address may be dialled; `opened` are the operator's holes in the policy.
pub fn allows(address: IpAddr, opened: &[IpNet]) -> bool {
    let open = |address: IpAddr| opened.iter().any(|net| net.contains(&address));
    if open(address) {
        return true;
    }
    let v4_may = |v4: Ipv4Addr| open(v4.into()) || v4_is_global(v4);
    match address {
        IpAddr::V4(v4) => v4_is_global(v4),
        // An ISATAP interface can be had within any prefix, those below included.
        IpAddr::V6(v6) => {
            isatap(v6).is_none_or(v4_may)
                && match embedded(v6) {
                    None => v6_is_global(v6),
                    Some(all) => !all.is_empty() && all.into_iter().all(v4_may),
                }
        }
    }
}

fn v4_is_global(address: Ipv4Addr) -> bool {
    let [a, b, c, d] = address.octets();
    !matches!(
        (a, b, c, d),
        // "This network", private, shared (RFC 6598), loopback, link-local.
        (0 | 10 | 127, ..)
            | (100, 64..=127, ..)
            | (169, 254, ..)
            | (172, 16..=31, ..)
            | (192, 168, ..)
            // IETF protocol assignments, documentation, 6to4 relays, benchmarking.
            | (192, 0, 0 | 2, _)
            | (192, 88, 99, _)
            | (198, 18 | 19, ..)
            | (198, 51, 100, _)
            | (203, 0, 113, _)
            // Multicast, reserved, broadcast.
            | (224..=255, ..)
            // Azure's wire server; Alibaba's 100.100.100.200 is in the shared range.
            | (168, 63, 129, 16)
    )
}

fn v6_is_global(address: Ipv6Addr) -> bool {
    let [a, b, ..] = address.segments();
    // Global unicast is 2000::/3, of which these parts are not.
    (a & 0xe000) == 0x2000
        && !matches!(
            (a, b),
            // IETF protocol assignments (with ORCHID, benchmarking and Teredo), documentation.
            (0x2001, 0x0000..=0x01ff | 0x0db8) | (0x3fff, 0x0000..=0x0fff)
        )
}

/// The IPv4 addresses that an IPv6 one means and is judged by alone; none at all is not to be dialled.
fn embedded(address: Ipv6Addr) -> Option<Vec<Ipv4Addr>> {
    let s = address.segments();
    Some(match s {
        // Mapped ::ffff:a.b.c.d, and its translated form ::ffff:0:a.b.c.d (RFC 2765).
        [0, 0, 0, 0, 0, 0xffff, h, l] | [0, 0, 0, 0, 0xffff, 0, h, l] => vec![v4(h, l)],
        // Compatible ::a.b.c.d; :: and ::1 are IPv6's own, and their 0.0.0.x is refused as well.
        [0, 0, 0, 0, 0, 0, h, l] => vec![v4(h, l)],
        // NAT64 64:ff9b::/96 (RFC 6052).
        [0x64, 0xff9b, 0, 0, 0, 0, h, l] => vec![v4(h, l)],
        [0x64, 0xff9b, 1, ..] => local_nat64(address),
        // 6to4 2002:a.b.c.d::/48 (RFC 3056).
        [0x2002, h, l, ..] => vec![v4(h, l)],
        // Teredo 2001:0:server::client, the client's bits inverted (RFC 4380).
        [0x2001, 0, sh, sl, _, _, ch, cl] => vec![v4(sh, sl), v4(!ch, !cl)],
        _ => return None,
    })
}

/// What an address of the local NAT64 prefix 64:ff9b:1::/48 (RFC 8215) may mean. Which prefix within
/// it a network translates, only that network knows, so each layout of RFC 6052 section 2.2 that fits
/// is read: /48, /56, /64 and /96, the first three around the octet that is to be zero.
///
/// Where the prefix or the suffix is zeros, the other layouts read 0.x.x.x there, which no translator
/// forwards: such readings say nothing, and an address with no other is not to be dialled.
fn local_nat64(address: Ipv6Addr) -> Vec<Ipv4Addr> {
    let o = address.octets();
    [[6, 7, 9, 10], [7, 9, 10, 11], [9, 10, 11, 12], [12, 13, 14, 15]]
        .into_iter()
        .map(|layout| Ipv4Addr::from(layout.map(|at: usize| o[at])))
        .filter(|v4| v4.octets()[0] != 0)
        .collect()
}

/// The IPv4 address of an ISATAP interface, …:0:5efe:a.b.c.d with any of the two bits that say
/// whether it is universal and whether a group's (RFC 5214 section 6.1).
fn isatap(address: Ipv6Addr) -> Option<Ipv4Addr> {
    match address.segments() {
        [.., bits, 0x5efe, h, l] if bits & !0x0300 == 0 => Some(v4(h, l)),
        _ => None,
    }
}

fn v4(high: u16, low: u16) -> Ipv4Addr {
    Ipv4Addr::from((u32::from(high) << 16) | u32::from(low))
}

#[cfg(test)]
mod tests;
