//! The table of URLs: every spelling of a host that their parser accepts, each with its verdict.
//!
//! They go the way a channel's URL goes: through its check, the parser and the guard. A resolver never
//! sees a literal address, so that what the parser takes for one has to be judged as one.

use hyper::HeaderMap;
use klaxon_channel::config::{Rules, check};
use klaxon_channel::form::Post;
use klaxon_channel::kind::Kind;

use super::resolve_tests::{Dns, PUBLIC, Zone};
use super::tests::options;
use super::*;

/// What becomes of a URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// It is no URL.
    Invalid,
    /// It is one, and no channel may have it.
    Unwanted,
    /// It says an address, or a name that has one, that may not be dialled.
    Forbidden,
    /// A port that may not.
    Port(u16),
    /// `http:`, which may not.
    Clear,
    /// This is dialled.
    Dials(&'static str),
    /// It is a name, of which the name server is asked.
    Name,
    /// It is a name that nobody can have, of which nobody is asked.
    Nobodys,
}

use Verdict::{Clear, Dials, Forbidden, Invalid, Name, Nobodys, Port, Unwanted};

const URLS: &[(&str, Verdict)] = &[
    // Loopback, as inet_aton(3) reads it: fewer parts, octal, hexadecimal, and all mixed.
    ("https://127.0.0.1/", Forbidden),
    ("https://127.1/", Forbidden),
    ("https://127.0.1/", Forbidden),
    ("https://2130706433/", Forbidden),
    ("https://0x7f000001/", Forbidden),
    ("https://0X7F000001/", Forbidden),
    ("https://0x7f.1/", Forbidden),
    ("https://0x7f.0x0.0x0.0x1/", Forbidden),
    ("https://0177.0.0.1/", Forbidden),
    ("https://0177.0.0.01/", Forbidden),
    ("https://00000000177.1/", Forbidden),
    ("https://017700000001/", Forbidden),
    ("https://127.0x0.0.01/", Forbidden),
    ("https://127.0.0.0x1/", Forbidden),
    ("https://127.0.0.0x/", Forbidden),
    ("https://127.255.255.254/", Forbidden),
    ("https://0/", Forbidden),
    ("https://0x/", Forbidden),
    ("https://0.0.0.0/", Forbidden),
    ("https://00.00.00.00/", Forbidden),
    // Private and link-local ones, likewise.
    ("https://10.0.0.5/", Forbidden),
    ("https://10.5/", Forbidden),
    ("https://167772165/", Forbidden),
    ("https://0x0a000001/", Forbidden),
    ("https://012.0.0.1/", Forbidden),
    ("https://192.168.257/", Forbidden),
    ("https://0xc0a80101/", Forbidden),
    ("https://0300.0250.1.1/", Forbidden),
    ("https://169.254.169.254/latest/meta-data/", Forbidden),
    ("https://169.254.43518/", Forbidden),
    ("https://2852039166/", Forbidden),
    ("https://0xa9fea9fe/", Forbidden),
    ("https://0251.0376.0251.0376/", Forbidden),
    ("https://168.63.129.16/", Forbidden),
    ("https://2822734096/", Forbidden),
    ("https://100.100.100.200/", Forbidden),
    ("https://0x64.0x64.0x64.0xc8/", Forbidden),
    ("https://4294967295/", Forbidden),
    // What no address has is no URL: whatever ends in a number has to be one.
    ("https://4294967296/", Invalid),
    ("https://256.0.0.1/", Invalid),
    ("https://127.0.0.256/", Invalid),
    ("https://1.2.3.4.5/", Invalid),
    ("https://127.0.0.08/", Invalid),
    ("https://0x7g.1/", Invalid),
    ("https://127..0.1/", Invalid),
    ("https://name.127.0.0.1/", Invalid),
    ("https://name.0x7f/", Invalid),
    // Trailing dots.
    ("https://127.0.0.1./", Forbidden),
    ("https://2130706433./", Forbidden),
    ("https://127.0.0.1../", Nobodys),
    ("https://localhost./", Forbidden),
    // Written in percents, in full width, in circles, with the dots of other scripts.
    ("https://%31%32%37.0.0.1/", Forbidden),
    ("https://127%2e0%2E0.1/", Forbidden),
    ("https://%30x7f.1/", Forbidden),
    ("https://%6c%6fcalhost/", Forbidden),
    ("https://%25%33%31/", Invalid),
    ("https://127.0.0.1%00/", Invalid),
    ("https://127.0.0.1%0a/", Invalid),
    ("https://127.0.0.1%20/", Invalid),
    ("https://127.0.0.1%2f/", Invalid),
    ("https://127.0.0.1%40example.com/", Invalid),
    ("https://①②⑦.⓪.⓪.①/", Forbidden),
    ("https://\u{ff11}\u{ff12}\u{ff17}.\u{ff10}.\u{ff10}.\u{ff11}/", Forbidden),
    ("https://127。0。0。1/", Forbidden),
    ("https://127\u{ff0e}0\u{ff61}0\u{3002}1/", Forbidden),
    ("https://127。0。0。1。/", Forbidden),
    ("https://0x7f。1/", Forbidden),
    ("https://𝟏𝟐𝟕.𝟎.𝟎.𝟏/", Forbidden),
    ("https://₁₂₇.0.0.₁/", Forbidden),
    ("https://¹²⁷.0.0.¹/", Forbidden),
    ("https://127.0.0.1\u{ad}/", Forbidden),
    ("https://1\u{200b}27.0.0.1/", Forbidden),
    ("https://1\u{2060}27.0.0.1/", Forbidden),
    ("https://localhost/", Forbidden),
    ("https://ⓛⓞⓒⓐⓛⓗⓞⓢⓣ/", Forbidden),
    ("https://١٢٧.٠.٠.١/", Invalid),
    // IPv6, and what of IPv4 is in it.
    ("https://[::1]/", Forbidden),
    ("https://[0:0:0:0:0:0:0:1]/", Forbidden),
    ("https://[0000:0000:0000:0000:0000:0000:0000:0001]/", Forbidden),
    ("https://[::]/", Forbidden),
    ("https://[::0.0.0.1]/", Forbidden),
    ("https://[::127.0.0.1]/", Forbidden),
    ("https://[::ffff:127.0.0.1]/", Forbidden),
    ("https://[::FFFF:7f00:1]/", Forbidden),
    ("https://[0:0:0:0:0:ffff:7f00:0001]/", Forbidden),
    ("https://[::ffff:0:127.0.0.1]/", Forbidden),
    ("https://[::ffff:169.254.169.254]/", Forbidden),
    ("https://[64:ff9b::7f00:1]/", Forbidden),
    ("https://[64:ff9b::10.0.0.5]/", Forbidden),
    ("https://[64:ff9b:1::169.254.169.254]/", Forbidden),
    ("https://[2002:7f00:1::]/", Forbidden),
    ("https://[2001:0:808:808::80ff:fffe]/", Forbidden),
    ("https://[2606:4700::5efe:10.0.0.5]/", Forbidden),
    ("https://[fd00:ec2::254]/", Forbidden),
    ("https://[fd20:ce::254]/", Forbidden),
    ("https://[fe80::1]/", Forbidden),
    ("https://[ff02::1]/", Forbidden),
    ("https://[fe80::1%25eth0]/", Invalid),
    ("https://[fe80::1%eth0]/", Invalid),
    ("https://[::1%25lo]/", Invalid),
    ("https://[::127.0.1]/", Invalid),
    ("https://[::0x7f.0.0.1]/", Invalid),
    ("https://[::127.0.0.01]/", Invalid),
    ("https://[127.0.0.1]/", Invalid),
    ("https://[::1]./", Invalid),
    ("https://[::1/", Invalid),
    ("https://::1/", Invalid),
    ("https://[v1.fe80::1]/", Invalid),
    ("https://%5b::1%5d/", Invalid),
    // Users and passwords, real and seeming.
    ("https://example.com@127.0.0.1/", Unwanted),
    ("https://127.0.0.1@example.com/", Unwanted),
    ("https://example.com:443@127.0.0.1/", Unwanted),
    ("https://example.com%40127.0.0.1/", Invalid),
    ("https://a@b@127.0.0.1/", Unwanted),
    ("https://@127.0.0.1/", Forbidden),
    ("https://:@127.0.0.1/", Forbidden),
    ("https://example.com/@127.0.0.1", Name),
    ("https://example.com?@127.0.0.1", Name),
    ("https://example.com#@127.0.0.1", Unwanted),
    ("https://127.0.0.1#@example.com", Unwanted),
    ("https://127.0.0.1?@example.com", Forbidden),
    ("https://127.0.0.1\\@example.com/", Forbidden),
    ("https://example.com\\@127.0.0.1/", Name),
    // Slashes and what else parsers put up with.
    ("HTTPS://127.0.0.1/", Forbidden),
    ("hTTpS://LOCALHOST/", Forbidden),
    ("https:127.0.0.1", Forbidden),
    ("https:/127.0.0.1", Forbidden),
    ("https:////127.0.0.1", Forbidden),
    ("https:\\\\127.0.0.1\\x", Forbidden),
    ("https:/\\/127.0.0.1", Forbidden),
    ("  https://127.0.0.1/  ", Forbidden),
    ("\u{0}\u{1f}https://127.0.0.1/", Unwanted),
    ("ht\ntps://127.0.0.1/", Unwanted),
    ("https://12\t7.0.\r\n0.1/", Unwanted),
    ("https:/\t/loc\nalhost/", Unwanted),
    ("https://127.0.0.1 /", Invalid),
    ("https://127.0.0.1\u{0}/", Invalid),
    ("https://127.0.0.1;x/", Nobodys),
    ("https://127.0.0.1,example.com/", Nobodys),
    ("https://exa mple.com/", Invalid),
    ("https://", Invalid),
    ("https:///", Invalid),
    ("//127.0.0.1/", Invalid),
    ("127.0.0.1", Invalid),
    ("", Invalid),
    // Ports.
    ("https://127.0.0.1:/", Forbidden),
    ("https://127.0.0.1:443/", Forbidden),
    ("https://127.0.0.1:0000443/", Forbidden),
    ("https://93.184.216.34:/", Dials("93.184.216.34:443")),
    ("https://93.184.216.34:00443/", Dials("93.184.216.34:443")),
    ("https://93.184.216.34:4\t43/", Unwanted),
    ("https://93.184.216.34:0/", Port(0)),
    ("https://93.184.216.34:22/", Port(22)),
    ("https://93.184.216.34:25/", Port(25)),
    ("https://93.184.216.34:80/", Port(80)),
    ("https://93.184.216.34:6379/", Port(6379)),
    ("https://93.184.216.34:65979/", Invalid),
    ("https://93.184.216.34:4x3/", Invalid),
    ("https://93.184.216.34:-1/", Invalid),
    ("https://93.184.216.34:443:25/", Invalid),
    // Schemes.
    ("http://93.184.216.34/", Clear),
    ("http://127.0.0.1:443/", Clear),
    ("ftp://93.184.216.34/", Unwanted),
    ("file:///etc/passwd", Unwanted),
    ("gopher://93.184.216.34:443/_x", Unwanted),
    ("ws://93.184.216.34/", Unwanted),
    ("javascript:alert(1)", Unwanted),
    ("data:,x", Unwanted),
    ("unix:/run/postgresql", Unwanted),
    ("jar:https://93.184.216.34!/", Unwanted),
    ("blob:https://93.184.216.34/x", Unwanted),
    // Names that a resolver must not be asked about.
    ("https://\u{ff4c}\u{ff4f}\u{ff43}\u{ff41}\u{ff4c}\u{ff48}\u{ff4f}\u{ff53}\u{ff54}/", Forbidden),
    ("https://x.localhost/", Forbidden),
    ("https://x.LocalHost./", Forbidden),
    // What may be dialled, in the same spellings.
    ("https://93.184.216.34/", Dials("93.184.216.34:443")),
    ("https://1572395042/", Dials("93.184.216.34:443")),
    ("https://0x5db8d822/", Dials("93.184.216.34:443")),
    ("https://0135.0270.0330.042/", Dials("93.184.216.34:443")),
    ("https://93.184.55330/", Dials("93.184.216.34:443")),
    ("https://93.184.216.34./", Dials("93.184.216.34:443")),
    ("https://93。184。216。34/", Dials("93.184.216.34:443")),
    ("https://[::ffff:93.184.216.34]/", Dials("[::ffff:93.184.216.34]:443")),
    ("https://[2606:4700:4700:0::1111]/", Dials("[2606:4700:4700::1111]:443")),
    ("https://[64:ff9b::93.184.216.34]/", Dials("[64:ff9b::5db8:d822]:443")),
    ("https://example.com/", Name),
    ("https://EXAMPLE.com./", Name),
    ("https://bücher.example/", Name),
    ("https://xn--bcher-kva.example/", Name),
    ("https://127.0.0.1.example/", Name),
    ("https://0x7f.1.example/", Name),
    ("https://1e3/", Name),
    ("https://_dmarc.example.com/", Name),
    ("https://xn--/", Invalid),
    ("https://a..example/", Nobodys),
];

fn may_be_a_channels(url: &str) -> bool {
    let rules = Rules { allow_http: true, ..Rules::default() };
    check(Kind::Webhook, &serde_json::json!({ "url": url }), &rules).is_ok()
}

/// The host and port to dial, and whether the name server was asked.
async fn verdict(dns: &Dns, http: &Http, text: &str) -> (Verdict, Option<String>) {
    let Ok(url) = url::Url::parse(text) else {
        assert!(!may_be_a_channels(text), "{text:?}");
        return (Invalid, None);
    };
    if !may_be_a_channels(text) {
        return (Unwanted, None);
    }
    let asked = dns.asked();
    let purpose = if url.scheme() == "https" { Purpose::Https } else { Purpose::Http };
    let port = url.port_or_known_default().unwrap_or_default();
    match dns.guard.target(url.host_str().unwrap_or_default(), port, purpose).await {
        Ok(_) if dns.asked() > asked => (Name, None),
        Ok(addresses) => (Dials(""), Some(addresses[0].to_string())),
        Err(refused) => {
            assert_eq!(dns.asked(), asked, "{text:?}");
            let post = Post { url, headers: HeaderMap::new(), body: "{}".into() };
            assert_eq!(http.post(post).await.unwrap_err().to_string(), refused.to_string(), "{text:?}");
            let verdict = match refused {
                EgressError::Policy => Forbidden,
                EgressError::Port(port) => Port(port),
                EgressError::Clear => Clear,
                EgressError::Unresolved => Nobodys,
            };
            (verdict, None)
        }
    }
}

#[tokio::test]
async fn each_url_has_its_verdict() {
    // Believed for no time, so that it shows each time whether the name server is asked.
    let no_time = GuardOptions { dns_ttl: Duration::ZERO, ..options() };
    let dns = Dns::serving(Zone { v4: vec![PUBLIC], ttl: 0, ..Zone::default() }, no_time).await;
    let http = Http::new(std::sync::Arc::clone(&dns.guard)).unwrap();
    let mut wrong = Vec::new();
    for &(url, expected) in URLS {
        let (found, dials) = verdict(&dns, &http, url).await;
        let same = match (expected, &dials) {
            (Dials(expected), Some(dials)) => expected == dials,
            _ => found == expected && dials.is_none(),
        };
        if !same {
            wrong.push(format!("{url:?} is {found:?} {dials:?}, not {expected:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
