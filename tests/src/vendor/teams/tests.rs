use super::*;

fn posted(card: &Value) -> Value {
    json!({"type": "message", "attachments": [{
        "contentType": "application/vnd.microsoft.card.adaptive", "contentUrl": null, "content": card,
    }]})
}

fn card(body: &Value) -> Value {
    posted(&json!({"type": "AdaptiveCard", "version": "1.4", "body": body}))
}

fn said(body: &Value) -> (u16, String) {
    let answer = answer(&Request::post(&format!("{PATH}?{QUERY}"), body));
    (answer.status, answer.body)
}

fn run(text: &str) -> Value {
    json!({"type": "RichTextBlock", "inlines": [{"type": "TextRun", "text": text, "weight": "Bolder"}, "plain"]})
}

#[test]
fn elements_are_those_of_the_schema() {
    let open = |url: &str| json!([{"type": "Action.OpenUrl", "title": "Open", "url": url}]);
    for (element, valid) in [
        (run("x"), true),
        (json!({"type": "RichTextBlock", "inlines": [{"type": "TextRun"}]}), false),
        (json!({"type": "RichTextBlock", "inlines": [{"text": "x"}]}), false),
        (json!({"type": "RichTextBlock", "inlines": "x"}), false),
        (json!({"type": "RichTextBlock"}), false),
        (json!({"type": "TextBlock", "text": "x", "wrap": true, "weight": "Bolder"}), true),
        (json!({"type": "TextBlock", "text": 7}), false),
        (json!({"type": "TextBlock", "text": "x", "wrap": "yes"}), false),
        (json!({"type": "TextBlock", "text": "x", "bold": true}), false),
        (json!({"type": "TextBlock"}), false),
        (json!({"type": "FactSet", "facts": [{"title": "a", "value": "b"}]}), true),
        (json!({"type": "FactSet", "facts": [{"title": "a", "value": null}]}), false),
        (json!({"type": "FactSet", "facts": [{"title": "a", "value": 7}]}), false),
        (json!({"type": "Container", "items": [run("x")], "style": "emphasis"}), true),
        (json!({"type": "Container", "items": [{"type": "TextRun", "text": "x"}]}), false),
        (json!({"type": "ColumnSet", "columns": [{"width": "auto", "items": [run("x")]}]}), true),
        (json!({"type": "ColumnSet", "columns": [{"width": "auto"}]}), false),
        (json!({"type": "ActionSet", "actions": open("https://ci.example.com")}), true),
        (json!({"type": "ActionSet", "actions": open("javascript:alert(1)")}), false),
        (json!({"type": "ActionSet", "actions": [{"type": "Action.Submit", "title": "Go"}]}), false),
        (json!({"type": "Poem"}), false),
        (json!("bare"), false),
    ] {
        let expected = if valid { 202 } else { 400 };
        let (status, why) = said(&card(&json!([element])));
        assert_eq!(status, expected, "{element}: {why}");
    }
}

#[test]
fn a_message_is_one_card_of_up_to_28_kb_to_a_known_workflow() {
    let fine = card(&json!([run("x")]));
    assert_eq!(said(&fine), (202, String::new()));
    let request = |path: &str| answer(&Request::post(path, &fine)).status;
    assert_eq!((request(PATH), request(&format!("{PATH}?sig=other")), request("/")), (401, 401, 401));
    assert_eq!(said(&card(&json!([run(&"x".repeat(28 * 1024))]))).0, 413);
    for (at, value) in [
        ("/type", json!("card")),
        ("/attachments", json!([])),
        ("/attachments/0/contentType", json!("text/plain")),
        ("/attachments/0/contentUrl", json!("https://x.example")),
        ("/attachments/0/content/type", json!("Card")),
        ("/attachments/0/content/version", json!("1.5")),
        ("/attachments/0/content/body", json!(null)),
    ] {
        let mut body = fine.clone();
        *body.pointer_mut(at).unwrap() = value;
        assert_eq!(said(&body).0, 400, "{at}");
    }
}

#[test]
fn what_teams_would_interpret_is_seen() {
    let fact = |value: &str| json!({"type": "FactSet", "facts": [{"title": "a", "value": value}]});
    let block = |text: &str| json!({"type": "TextBlock", "text": text});
    for quiet in [
        run("**a** [b](https://evil) - c"),
        block("Two tests failed, e-mail sent"),
        block(r"\*a\* \[b\](https://evil)"),
        fact("1.5 s"),
        run("{ {DATE(2026-01-01T00:00:00Z)}}"),
    ] {
        assert_eq!(reading(&card(&json!([quiet]))), Reading::default(), "{quiet}");
    }
    for loud in [
        block("**a**"),
        block("[text](https://evil)"),
        block("- a"),
        block("a\n1. b"),
        fact("_a_"),
        fact("<at>all</at>"),
        run("{{DATE(2026-01-01T00:00:00Z, SHORT)}}"),
        json!({"type": "Container", "items": [block("*a*")]}),
    ] {
        assert!(!reading(&card(&json!([loud]))).interpreted.is_empty(), "{loud}");
    }
    let mention = json!({"type": "AdaptiveCard", "msteams": {"entities": []}});
    assert!(!reading(&posted(&mention)).interpreted.is_empty());
    let open = json!([{"type": "Action.OpenUrl", "title": "Open", "url": "https://ci.example.com"}]);
    assert_eq!(reading(&card(&open)).links, ["https://ci.example.com"]);
}
