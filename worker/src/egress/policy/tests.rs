//! The table of addresses, each with its verdict, and that no form of IPv6 hides one.

use proptest::prelude::*;

use super::*;

/// Addresses that may be dialled.
const ALLOWED: &[&str] = &[
    "1.1.1.1",
    "8.8.8.8",
    "9.255.255.255",
    "11.0.0.0",
    "93.184.216.34",
    "100.63.255.255",
    "100.128.0.0",
    "126.255.255.255",
    "128.0.0.1",
    "168.63.129.15",
    "168.63.129.17",
    "169.253.255.255",
    "169.255.0.0",
    "172.15.255.255",
    "172.32.0.0",
    "191.255.255.255",
    "192.0.1.1",
    "192.0.3.0",
    "192.31.196.1",
    "192.52.193.1",
    "192.88.98.255",
    "192.88.100.0",
    "192.167.255.255",
    "192.169.0.0",
    "192.175.48.1",
    "198.17.255.255",
    "198.20.0.0",
    "198.51.99.255",
    "198.51.101.0",
    "203.0.112.255",
    "203.0.114.0",
    "223.255.255.255",
    "2000::1",
    "2001:200::1",
    "2001:4860:4860::8888",
    "2400::1",
    "2600::1",
    "2606:4700:4700::1111",
    "2620:4f:8000::1",
    "2a00:1450::1",
    "3ffe::1",
    "3fff:1000::1",
    // IPv4 inside, judged by it.
    "::ffff:8.8.8.8",
    "::ffff:0:8.8.8.8",
    "::8.8.8.8",
    "64:ff9b::8.8.8.8",
    "64:ff9b:1::8.8.8.8",
    "64:ff9b:1:808:8:800::",
    "64:ff9b:1:5db8:d8:2200::",
    "2002:808:808::1",
    "2001:0:808:808:0:0:f7f7:f7f7",
    "2600::5efe:8.8.8.8",
    "2600::200:5efe:8.8.8.8",
];

/// Addresses that may not.
const REFUSED: &[&str] = &[
    "0.0.0.0",
    "0.0.0.1",
    "0.255.255.255",
    "10.0.0.0",
    "10.1.2.3",
    "10.255.255.255",
    "100.64.0.0",
    "100.100.100.200",
    "100.127.255.255",
    "127.0.0.0",
    "127.0.0.1",
    "127.255.255.255",
    "168.63.129.16",
    "169.254.0.0",
    "169.254.169.254",
    "169.254.170.2",
    "169.254.255.255",
    "172.16.0.0",
    "172.20.1.1",
    "172.31.255.255",
    "192.0.0.0",
    "192.0.0.8",
    "192.0.0.170",
    "192.0.0.192",
    "192.0.0.255",
    "192.0.2.0",
    "192.0.2.255",
    "192.88.99.0",
    "192.88.99.1",
    "192.168.0.0",
    "192.168.255.255",
    "198.18.0.0",
    "198.19.255.255",
    "198.51.100.0",
    "198.51.100.255",
    "203.0.113.0",
    "203.0.113.255",
    "224.0.0.0",
    "224.0.0.251",
    "239.255.255.255",
    "240.0.0.0",
    "254.1.1.1",
    "255.255.255.255",
    "::",
    "::1",
    "::2",
    "100::1",
    "100:0:0:1::1",
    "2001::",
    "2001:1::1",
    "2001:2::1",
    "2001:3::1",
    "2001:4:112::1",
    "2001:10::1",
    "2001:20::1",
    "2001:30::1",
    "2001:1ff:ffff::1",
    "2001:db8::1",
    "2001:db8:ffff::1",
    "3fff::1",
    "3fff:fff::1",
    "4000::1",
    "5f00::1",
    "fc00::1",
    "fd00::1",
    "fd00:ec2::254",
    "fd20:ce::254",
    "fdff::1",
    "fe00::1",
    "fe80::1",
    "febf::1",
    "fec0::1",
    "feff::1",
    "ff02::1",
    "ff0e::1",
    "ffff::1",
    "1::1",
    "1fff::1",
    // IPv4 inside, judged by it.
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "::ffff:169.254.169.254",
    "::ffff:0:127.0.0.1",
    "::127.0.0.1",
    "::10.0.0.1",
    "64:ff9b::127.0.0.1",
    "64:ff9b::10.0.0.1",
    "64:ff9b::169.254.169.254",
    "64:ff9b:1::127.0.0.1",
    "64:ff9b:1::10.0.0.1",
    "64:ff9b:1:7f00:0:100::",
    "64:ff9b:1:a00:0:100::",
    "64:ff9b:1::",
    "64:ff9b:1:0:ff00:ff::",
    "64:ff9b:1:808:7f:0:100:0",
    "2002:808:808::5efe:10.0.0.1",
    "2600::300:5efe:10.0.0.1",
    "64:ff9b:2::8.8.8.8",
    "2002:7f00:1::1",
    "2002:a00:1::1",
    "2002:a9fe:a9fe::1",
    "2002:c0a8:101::1",
    "2001:0:808:808:0:0:80ff:fffe",
    "2001:0:7f00:1:0:0:f7f7:f7f7",
    "2600::5efe:127.0.0.1",
    "2600::5efe:10.0.0.1",
    "2600::200:5efe:192.168.1.1",
    "fe80::5efe:8.8.8.8",
    "fe80::200:5efe:8.8.8.8",
];

#[test]
fn each_address_has_its_verdict() {
    for text in ALLOWED {
        assert!(allows(text.parse().unwrap(), &[]), "{text} should be allowed");
    }
    for text in REFUSED {
        assert!(!allows(text.parse().unwrap(), &[]), "{text} should be refused");
    }
}

#[test]
fn the_operator_opens_networks() {
    let opened: Vec<IpNet> = ["10.1.0.0/16", "fd00:1::/32"].iter().map(|net| net.parse().unwrap()).collect();
    for (text, verdict) in [
        ("10.1.2.3", true),
        ("10.2.0.1", false),
        ("::ffff:10.1.2.3", true),
        ("64:ff9b::10.1.2.3", true),
        ("64:ff9b::10.2.2.3", false),
        ("fd00:1::7", true),
        ("fd00:2::7", false),
    ] {
        assert_eq!(allows(text.parse().unwrap(), &opened), verdict, "{text}");
    }
}

proptest! {
    /// Nothing that is refused as IPv4 is reached by writing it as IPv6.
    #[test]
    fn no_form_of_ipv6_hides_an_ipv4_address(bits: u32, net: u16, port: u16) {
        // An operator's own NAT64 reads 0.x.x.x out of zeros.
        prop_assume!(bits >> 24 != 0);
        let judged = v4_is_global(bits.into());
        let (h, l) = ((bits >> 16) as u16, bits as u16);
        let [a, b, c, d] = bits.to_be_bytes().map(u16::from);
        for [s4, s5, s6, s7] in [[0, 0xffff, h, l], [0xffff, 0, h, l], [0, 0, h, l]] {
            prop_assert_eq!(allows(Ipv6Addr::new(0, 0, 0, 0, s4, s5, s6, s7).into(), &[]), judged);
        }
        prop_assert_eq!(allows(Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, h, l).into(), &[]), judged);
        prop_assert_eq!(allows(Ipv6Addr::new(0x2002, h, l, net, 0, 0, 0, 1).into(), &[]), judged);
        prop_assert_eq!(
            allows(Ipv6Addr::new(0x2001, 0, 0x808, 0x808, 0, port, !h, !l).into(), &[]), judged
        );
        for others in [
            [1, h, c, d << 8, net, port],
            [1, net & 0xff00 | a, b, (c << 8) | d, net, port],
            [1, net, a, (b << 8) | c, d << 8, port],
            [1, net, 0, 0, h, l],
        ] {
            let [s2, s3, s4, s5, s6, s7] = others;
            let local = Ipv6Addr::new(0x64, 0xff9b, s2, s3, s4, s5, s6, s7);
            prop_assert!(judged || !allows(local.into(), &[]), "{local}");
        }
        for prefix in [0x2600, 0x2002, 0xfe80] {
            let interface = Ipv6Addr::new(prefix, 0x808, 0x808, net, port & 0x0300, 0x5efe, h, l);
            prop_assert!(judged || !allows(interface.into(), &[]), "{interface}");
        }
    }
}
