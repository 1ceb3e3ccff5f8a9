//! Payloads of somebody who controls every field: names of tests, messages of exceptions, branches of
//! pull requests. None may become anything but text.

use serde_json::{Map, Value, json};

/// The fields with a meaning, those of `channel.disabled`, and one without any.
pub const FIELDS: [&str; 35] = [
    "priority",
    "task_id",
    "task_name",
    "queue",
    "engine",
    "state",
    "exception",
    "traceback",
    "duration_ms",
    "budget_ms",
    "run_id",
    "branch",
    "is_default_branch",
    "status",
    "total_tests",
    "failed_tests",
    "passed_tests",
    "flaky_tests",
    "flakiness_rate",
    "regression_pct",
    "baseline_duration_ms",
    "top_failures",
    "owners",
    "cluster_id",
    "signature",
    "sample_error",
    "affected_cases",
    "agent_id",
    "agent_name",
    "title",
    "url",
    "channel",
    "kind",
    "reason",
    "note",
];

/// A payload with everything in it, as it is meant.
#[must_use]
pub fn ordinary() -> Value {
    json!({
        "priority": "high", "task_id": "t-17", "task_name": "billing.tasks.charge", "queue": "default", "engine": "celery",
        "state": "failure", "exception": "ValueError: negative amount", "traceback": "Traceback:\n  File \"a.py\"",
        "duration_ms": 1500, "budget_ms": 1000, "run_id": "r-9", "branch": "main", "is_default_branch": true,
        "status": "failed", "total_tests": 412, "failed_tests": 3, "passed_tests": 409, "flaky_tests": 0,
        "flakiness_rate": 0.25, "regression_pct": 12.5, "baseline_duration_ms": 900,
        "top_failures": ["test_login", {"name": "test_pay", "message": "assert 1 == 2"}], "owners": ["team-a"],
        "cluster_id": "c-1", "signature": "ValueError in charge", "sample_error": "negative amount",
        "affected_cases": 4, "agent_id": "a-1", "agent_name": "runner-1", "url": "https://ci.example.com/r/9",
    })
}

/// What is markup, a mention, a link, an end of something or unprintable to one program or another.
#[must_use]
pub fn texts() -> Vec<String> {
    let mut texts: Vec<String> = [
        "<!channel> <!everyone> <!here> <@U123> <#C123> <!subteam^S1>",
        "@everyone @here @channel <@123> <@&123> <#123> <t:1> <:x:1> </run:1>",
        "&lt;!channel&gt; &amp;lt;@U123&amp;gt; &#60;b&#62; &nbsp; & < >",
        "</pre></b></a><b>bold</b><a href=\"https://evil.example\">x</a><script>alert(1)</script><!--",
        "*_[](`",
        "*bold* _italic_ **bold** __under__ ~~struck~~ ||hidden|| `code` ```block```",
        "`",
        "[text](https://evil.example) ![x](https://evil.example/x.png) [a]: https://evil.example",
        "<https://evil.example|x> <mailto:a@evil.example|x> <a href='https://evil.example'>",
        r"\*a\* \\*b\\* \@everyone \<!channel> \[x\](https://evil.example) \",
        "- item",
        "# heading",
        "> quote",
        "-# small",
        ">>> all",
        "1. one",
        ":tada: :x: {{DATE(2026-01-01T00:00:00Z, SHORT)}} {{TIME(2026-01-01T00:00:00Z)}} ${x} {{ data }} {% x %}",
        "one\n- item\n# heading\n-# small\n> quote\n>>> all\n* star\n1. two\n```\ncode\n```\n---\n| a | b |",
        "a\r\nBcc: victim@evil.example\r\n\r\n.\r\n# heading\n> quote\n- item\n.\n",
        "=?UTF-8?B?PCFjaGFubmVsPg==?=",
        "\u{1b}[31mred\u{1b}[0m \u{1b}]8;;https://evil.example\u{7}x\u{1b}]8;;\u{7} \u{1b}]0;title\u{7}",
        "\u{1}\u{2}\u{7}\u{8}\u{b}\u{c}\u{1f}\u{7f}\u{80}\u{9f}\u{2400}",
        "\u{202e}desrever\u{202c} \u{2066}x\u{2069} \u{200b}\u{200d}\u{feff}\u{2028}\u{2029}",
        "@\u{200b}everyone <\u{200b}!channel> \u{ff20}everyone \u{ff1c}!channel\u{ff1e}",
        "javascript:alert(1) https://bank.example@evil.example/ tg://user?id=1 data:text/html,x",
        "' OR 1=1; DROP TABLE klaxon.event; --",
        "",
        " ",
        "\u{a0}\u{3000}\n",
        "\u{1}",
        "null",
    ]
    .map(str::to_owned)
    .into();
    texts.push(format!("e{}", "\u{301}".repeat(500)));
    texts.push("👩\u{200d}👩\u{200d}👧\u{200d}👦🏳\u{fe0f}\u{200d}🌈".repeat(40));
    texts
}

/// Texts of more than any message holds.
#[must_use]
pub fn floods() -> Vec<String> {
    let mut floods = vec!["x".repeat(100_000), "😀".repeat(5_000), "line\n".repeat(10_000)];
    // Characters that grow when they are escaped, and cuts that could fall within what they become.
    floods.extend(
        ["&", "<", "\"", "\\", "*", "@", "<!channel>", "@everyone ", "\u{1}", "é\u{301}"]
            .map(|s| s.repeat(5_000)),
    );
    floods
}

/// Addresses of which most are none, and none leads elsewhere than to `ci.example.com`.
#[must_use]
pub fn addresses() -> Vec<String> {
    let mut addresses: Vec<String> = [
        "javascript:alert(1)",
        "JavaScript://ci.example.com/%0aalert(1)",
        "data:text/html,<script>alert(1)</script>",
        "https://bank.example@evil.example/",
        "https://ci.example.com:443@evil.example/",
        "//evil.example/x",
        "https:",
        "https://",
        "ftp://ci.example.com/x",
        "https://ci.example.com/\"><b onclick='x'>",
        "https://ci.example.com/a b_c*d|e(f)`g`?<x>&y=[z]@everyone#@here",
        "https://ci.example.com/<!channel>|x>",
        "https://ci.example.com/{{DATE(2026-01-01T00:00:00Z)}}",
        "https://ci.example.com/\u{202e}/ü/😀",
        " https://ci.example.com/\r\n\tx ",
        "HTTPS://CI.EXAMPLE.COM:443/x",
    ]
    .map(str::to_owned)
    .into();
    addresses.extend(
        [400, 1900, 2500, 50_000].map(|length| format!("https://ci.example.com/{}", "é*".repeat(length / 3))),
    );
    addresses
}

/// The same value in every field, and where lists are meant, in a list and in an object in a list.
fn everywhere(value: &Value) -> Value {
    let mut fields: Map<String, Value> =
        FIELDS.iter().map(|field| ((*field).to_owned(), value.clone())).collect();
    let named = json!({"name": value, "message": value});
    fields.insert("top_failures".into(), json!([value, named, value, value]));
    fields.insert("owners".into(), json!([value]));
    fields.into()
}

/// Payloads with hostile text in all fields at once.
#[must_use]
pub fn payloads() -> Vec<String> {
    texts().into_iter().map(|text| everywhere(&text.into()).to_string()).collect()
}

/// Payloads that are hostile in one field, in their types or in their shape.
#[must_use]
pub fn oddities() -> Vec<String> {
    let mut oddities: Vec<String> =
        ["null", "true", "7", "-1e300", "[]", "{}", "\"\"", "\"<!channel> @everyone\""]
            .map(str::to_owned)
            .into();
    oddities.push(json!(["@everyone", {"title": "<!channel>"}]).to_string());
    for (open, close) in [("[", "]"), ("{\"title\":", "}")] {
        let nested = [open.repeat(1_000), "1".to_owned(), close.repeat(1_000)].concat();
        oddities.push(format!("{{\"title\": {nested}, \"top_failures\": {nested}, \"note\": {nested}}}"));
        oddities.push(nested);
    }
    for value in
        [json!(null), json!(true), json!(-0.5), json!(1e300), json!([["x"]]), json!({"a": {"b": "<@U1>"}})]
    {
        oddities.push(everywhere(&value).to_string());
    }
    oddities.push(format!("{{\"title\": {0}, \"run_id\": {0}, \"failed_tests\": {0}}}", "9".repeat(300)));
    for field in FIELDS {
        oddities.push(json!({ field: texts().concat() }).to_string());
        oddities.push(json!({ field: "x\u{301}<!channel>@everyone ".repeat(4_000) }).to_string());
    }
    for flood in floods() {
        oddities.push(json!({"title": flood, "exception": flood}).to_string());
        oddities.push(json!({"task_name": flood, "top_failures": [flood]}).to_string());
    }
    oddities.extend(addresses().into_iter().map(|url| json!({"title": "Where to?", "url": url}).to_string()));
    oddities
}
