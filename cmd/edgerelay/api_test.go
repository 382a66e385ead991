package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/omnisales/edgerelay/sdk/webhook"
)

const order = `{"event":"order.created","data":{"order_id":"ord_789","total":99.99}}`

// What the guide says of creating, reading, changing and deleting a webhook.
func TestWebhookLife(t *testing.T) {
	n := startNode(t, t.TempDir())
	created := must(t, n, 201, "POST", "/api/webhooks", `{"name":"Order Notifications","url":"https://your-app.com/webhooks/orders","events":["order.created","order.updated","order.shipped"],"description":"Receive order events in real-time"}`)
	w := created.object(t)
	for field, want := range map[string]any{"name": "Order Notifications", "url": "https://your-app.com/webhooks/orders", "is_active": true, "status": "active", "timeout_seconds": 30.0, "max_retries": 3.0} {
		if w[field] != want {
			t.Errorf("%s is %v, want %v", field, w[field], want)
		}
	}
	if _, err := webhook.ParseSecret(w["secret"].(string)); err != nil {
		t.Error(err)
	}
	if _, err := time.Parse("2006-01-02T15:04:05Z", w["created_at"].(string)); err != nil {
		t.Error(err)
	}
	path := "/api/webhooks/" + w["id"].(string)
	got := must(t, n, 200, "GET", path, "")
	if strings.Contains(got.raw, "whsec_") {
		t.Error("a secret was shown again")
	}
	// What GET gives can be sent back.
	back := must(t, n, 200, "PUT", path, string(got.body.Data))
	same := got.object(t)
	same["updated_at"] = back.object(t)["updated_at"]
	if fmt.Sprint(back.object(t)) != fmt.Sprint(same) {
		t.Errorf("PUT of a GET changed it:\n%s\n%s", got.raw, back.raw)
	}
	for _, method := range []string{"PUT", "PATCH"} {
		changed := must(t, n, 200, method, path, `{"name":"`+method+`","is_active":false}`).object(t)
		if changed["name"] != method || changed["is_active"] != false || changed["url"] != w["url"] || changed["status"] != "disabled" && changed["status"] != "paused" {
			t.Errorf("%s gives %v", method, changed)
		}
	}
	if list := ids(t, must(t, n, 200, "GET", "/api/webhooks", "")); !slices.Equal(list, []string{w["id"].(string)}) {
		t.Errorf("listed %v", list)
	}
	if d := must(t, n, 200, "DELETE", path, "").object(t); len(d) != 1 || d["id"] != w["id"] {
		t.Errorf("DELETE gives %v", d)
	}
	must(t, n, 404, "GET", path, "")
	must(t, n, 404, "DELETE", path, "")
}

// Changes at the same time are all made.
func TestConcurrentChanges(t *testing.T) {
	n := startNode(t, t.TempDir())
	w := subscribe(t, n, "http://127.0.0.1:1/", "")
	var changing sync.WaitGroup
	for i := range 40 {
		changing.Go(func() {
			if a := ask(t, n, "PATCH", "/api/webhooks/"+w.ID, fmt.Sprintf(`{"headers":{"X-%d":"1"}}`, i)); a.status != 200 {
				t.Errorf("%d %s", a.status, a.raw)
			}
		})
	}
	changing.Wait()
}

// A mistake is told with its field, and nothing is kept of it.
func TestMistakes(t *testing.T) {
	n := startNode(t, t.TempDir(), "--max-event-bytes", "2000")
	w := subscribe(t, n, "http://127.0.0.1:1/", "")
	base := "/api/webhooks/" + w.ID
	hook := func(more string) string { return `{"name":"n","url":"https://a.example/","events":["*"],` + more + `}` }
	data := func(value string) string { return `{"event":"order.created","data":` + value + `}` }
	for _, c := range []struct {
		method, path, body, headers string
		status                      int
		code, field                 string
	}{
		{"POST", "/api/webhooks", ``, "Content-Type: application/json", 400, "invalid", ""},
		{"POST", "/api/webhooks", `[]`, "", 400, "invalid", ""},
		{"POST", "/api/webhooks", `{"name":"n"`, "", 400, "invalid", ""},
		{"POST", "/api/webhooks", hook(`"a":1`), "", 400, "invalid", "a"},
		{"POST", "/api/webhooks", hook(`"name":"again"`), "", 400, "invalid", "name"},
		{"POST", "/api/webhooks", hook(`"timeout_seconds":"30"`), "", 400, "invalid", "timeout_seconds"},
		{"POST", "/api/webhooks", hook(`"timeout_seconds":121`), "", 400, "invalid", "timeout_seconds"},
		{"POST", "/api/webhooks", hook(`"max_retries":0`), "", 400, "invalid", "max_retries"},
		{"POST", "/api/webhooks", hook(`"secret":"whsec_short"`), "", 400, "invalid", "secret"},
		{"POST", "/api/webhooks", hook(`"headers":{"X-Webhook-ID":"x"}`), "", 400, "invalid", "headers"},
		{"POST", "/api/webhooks", hook(`"headers":{"a":"b\r\nc: d"}`), "", 400, "invalid", "headers.a"},
		{"POST", "/api/webhooks", hook(`"ip_whitelist":["nowhere"]`), "", 400, "invalid", "ip_whitelist"},
		{"POST", "/api/webhooks", `{"url":"https://a.example/","events":["*"]}`, "", 400, "invalid", "name"},
		{"POST", "/api/webhooks", `{"name":"n","events":["*"]}`, "", 400, "invalid", "url"},
		{"POST", "/api/webhooks", `{"name":"n","url":"https://a.example/"}`, "", 400, "invalid", "events"},
		{"POST", "/api/webhooks", `{"name":"n","url":"https://a.example/","events":["no.such"]}`, "", 400, "invalid", "events"},
		{"POST", "/api/webhooks", `{"name":"n","url":"https://u:p@a.example/","events":["*"]}`, "", 400, "invalid", "url"},
		{"POST", "/api/webhooks", `{"name":"n","url":"ftp://a.example/","events":["*"]}`, "", 400, "invalid", "url"},
		{"POST", "/api/webhooks", hook(`"is_active":true`), "Content-Type: text/plain", 415, "unsupported_media_type", ""},
		{"PUT", base, `{"name":""}`, "", 400, "invalid", "name"},
		{"GET", "/api/webhooks?limit=0", "", "", 400, "invalid", "limit"},
		{"GET", "/api/webhooks?limit=201", "", "", 400, "invalid", "limit"},
		{"GET", "/api/webhooks?cursor=x", "", "", 400, "invalid", "cursor"},
		{"GET", "/api/webhooks/nobody", "", "", 404, "not_found", ""},
		{"POST", base, "{}", "", 405, "method_not_allowed", ""},
		{"GET", "/api/nothing", "", "", 404, "not_found", ""},
		{"GET", base + "/nothing", "", "", 404, "not_found", ""},
		{"GET", base + "/stats?window=1y", "", "", 400, "invalid", "window"},
		{"GET", base + "/logs?status=odd", "", "", 400, "invalid", "status"},
		{"GET", base + "/logs?since=yesterday", "", "", 400, "invalid", "since"},
		{"POST", base + "/test", `{"event":"no.such"}`, "", 400, "invalid", "event"},
		{"POST", base + "/replay", `{}`, "", 400, "invalid", "failure_id"},
		{"POST", base + "/replay", `{"all":true,"failure_id":"fail_1"}`, "", 400, "invalid", "failure_id"},
		{"POST", base + "/replay", `{"failure_id":"fail_1"}`, "", 404, "not_found", ""},
		{"POST", base + "/secret/rotate", `{"finish":true}`, "", 400, "invalid", "finish"},
		{"POST", "/api/events", `{"event":"order.created"}`, "", 400, "invalid", "data"},
		{"POST", "/api/events", data(`[1]`), "", 400, "invalid", "data"},
		{"POST", "/api/events", data(`{"a":1,"\u0061":2}`), "", 400, "invalid", "data.a"},
		{"POST", "/api/events", data("{\"a\":\"\xff\"}"), "", 400, "invalid", ""},
		{"POST", "/api/events", "\xef\xbb\xbf" + order, "", 400, "invalid", ""},
		{"POST", "/api/events", data(strings.Repeat(`{"a":`, 600) + "1" + strings.Repeat("}", 600)), "", 400, "invalid", "data"},
		{"POST", "/api/events", data(`{"a":"` + strings.Repeat("x", 2000) + `"}`), "", 413, "too_large", "data"},
		{"POST", "/api/events", data(`{"a":"` + strings.Repeat("x", 100_000) + `"}`), "", 413, "too_large", ""},
		{"POST", "/api/events", `{"event":"no.such","data":{}}`, "", 400, "invalid", "event"},
		{"POST", "/api/events", `{"event":"webhook.disabled","data":{}}`, "", 400, "invalid", "event"},
		{"POST", "/api/events", `{"event":"order.created","data":{},"id":"a b"}`, "", 400, "invalid", "id"},
		{"POST", "/api/events", `{"event":"order.created","data":{},"id":"a"}`, "Idempotency-Key: b", 400, "invalid", "id"},
		{"POST", "/api/events", `{"event":"order.created","data":{},"created_at":"now"}`, "", 400, "invalid", "created_at"},
		{"POST", "/api/events", `{"event":"order.created","data":{},"channels":"eu"}`, "", 400, "invalid", "channels"},
		{"POST", "/api/events", `{"event":"order.created","data":{},"more":1}`, "", 400, "invalid", "more"},
		{"POST", "/api/events/batch", order, "", 400, "invalid", ""},
		{"POST", "/api/events/batch", `[]`, "", 400, "invalid", ""},
		{"POST", "/api/events/batch", "[" + strings.Repeat(`{},`, 1000) + "{}]", "", 413, "too_large", ""},
		{"GET", "/api/events/evt_unknown", "", "", 404, "not_found", ""},
	} {
		a := ask(t, n, c.method, c.path, c.body, slices.DeleteFunc([]string{c.headers}, func(h string) bool { return h == "" })...)
		if a.status != c.status || a.body.Error.Code != c.code || !strings.HasPrefix(a.body.Error.Field, c.field) || a.body.Error.Message == "" {
			t.Errorf("%s %s %.80s: %d %s, want %d %s of %q", c.method, c.path, c.body, a.status, a.raw, c.status, c.code, c.field)
		}
		if c.status == 405 && a.header.Get("Allow") != "DELETE, GET, PATCH, PUT" {
			t.Errorf("Allow: %q", a.header.Get("Allow"))
		}
	}
	if list := ids(t, must(t, n, 200, "GET", "/api/webhooks", "")); len(list) != 1 {
		t.Errorf("a refused webhook was kept: %v", list)
	}
	if s := must(t, n, 200, "GET", base+"/stats", "").object(t); s["deliveries"] != 0.0 {
		t.Errorf("a refused event was kept: %v", s)
	}
}

// The answer to a body that is far too large reaches a client that writes it
// all before it reads.
func TestTooLargeIsAnswered(t *testing.T) {
	n := startNode(t, t.TempDir())
	for range 20 {
		if a := ask(t, n, "POST", "/api/events", strings.Repeat(" ", 8<<20)); a.status != 413 || a.body.Error.Code != "too_large" {
			t.Fatalf("%d %s", a.status, a.raw)
		}
	}
}

// What a receiver gets, to the byte.
func TestDeliveryOnTheWire(t *testing.T) {
	n := startNode(t, t.TempDir())
	rc := receive(t, ok)
	w := subscribe(t, n, rc.URL+"/hook?a=b", `,"headers":{"X-Tenant":"blue"},"signing":["v1","v1a"],"channels":["eu","us"]`)
	other := subscribe(t, n, rc.URL, `,"channels":["asia"]`)
	publish := `{"event":"order.created","id":"evt_550e8400e29b41d4a716446655440000","created_at":"2025-01-16T12:30:00+02:00","channels":["eu"],
		"data":{"b":1.0,"2":"two","1":"<one>","n":[1e2,-0,12345678901234567890],"u":"\u2028\ud800"}}`
	accepted := must(t, n, 202, "POST", "/api/events", publish)
	if o := accepted.object(t); o["matched"] != 1.0 || o["duplicate"] != false || o["created_at"] != "2025-01-16T10:30:00Z" {
		t.Errorf("accepted: %v", o)
	}
	if ws := accepted.body.Warnings; len(ws) != 1 || ws[0].Code != "number_not_exact" || ws[0].Field != "data.n[2]" {
		t.Errorf("warnings %+v", ws)
	}
	got := rc.wait(t, 1)[0]
	const body = `{"id":"evt_550e8400e29b41d4a716446655440000","event":"order.created","created_at":"2025-01-16T10:30:00Z","data":{"1":"<one>","2":"two","b":1,"n":[100,0,12345678901234567890],"u":"` + "\u2028" + `\ud800"}}`
	if string(got.body) != body {
		t.Errorf("body\n%s, want\n%s", got.body, body)
	}
	for name, want := range map[string]string{"Content-Type": "application/json", "User-Agent": "OmniSales-Webhook/1.0", "X-Webhook-Id": w.ID, "Webhook-Id": "evt_550e8400e29b41d4a716446655440000",
		"X-Webhook-Event": "order.created", "X-Webhook-Attempt": "1", "X-Tenant": "blue"} {
		if got.header.Get(name) != want {
			t.Errorf("%s: %q, want %q", name, got.header.Get(name), want)
		}
	}
	if got.header.Get("X-Webhook-Timestamp") != got.header.Get("webhook-timestamp") || !strings.Contains(got.header.Get("webhook-signature"), " v1a,") {
		t.Errorf("headers %v", got.header)
	}
	secret, err := webhook.ParseSecret(w.Secret)
	if err != nil {
		t.Fatal(err)
	}
	if err := verifyBoth(secret, got.header, got.body); err != nil {
		t.Error(err)
	}
	// The event tells where it went, the log how.
	event := must(t, n, 200, "GET", "/api/events/evt_550e8400e29b41d4a716446655440000", "").raw
	if !strings.Contains(event, w.ID) || strings.Contains(event, other.ID) {
		t.Errorf("the event went to %s", event)
	}
	var logs []map[string]any
	eventually(t, "a log row", func() bool {
		must(t, n, 200, "GET", "/api/webhooks/"+w.ID+"/logs", "").into(t, &logs)
		return len(logs) == 1
	})
	row := logs[0]
	if row["webhook_id"] != w.ID || row["event_id"] != "evt_550e8400e29b41d4a716446655440000" || row["status"] != "succeeded" || row["response_code"] != 200.0 || row["evidence"] != "full" || row["attempt"] != 1.0 ||
		row["request"].(map[string]any)["body"] != body || row["delivery_id"] != got.header.Get("X-Webhook-Delivery") || row["phases"].(map[string]any)["first_byte_ms"] == nil {
		t.Errorf("log row %v", row)
	}
}

// Publishing again is safe; publishing something else under an id is not.
func TestIdempotentPublish(t *testing.T) {
	n := startNode(t, t.TempDir())
	rc := receive(t, ok)
	subscribe(t, n, rc.URL, "")
	first := must(t, n, 202, "POST", "/api/events", order, "Idempotency-Key: order-1").object(t)
	again := must(t, n, 202, "POST", "/api/events", `{"data":{"order_id":"ord_789","total":99.990},"event":"order.created","id":"order-1"}`).object(t)
	if first["id"] != "order-1" || again["duplicate"] != true || again["matched"] != first["matched"] || again["created_at"] != first["created_at"] {
		t.Errorf("%v, then %v", first, again)
	}
	if a := must(t, n, 409, "POST", "/api/events", `{"event":"order.updated","data":{},"id":"order-1"}`); a.body.Error.Code != "id_conflict" {
		t.Errorf("conflict: %s", a.raw)
	}
	batch := must(t, n, 202, "POST", "/api/events/batch", `[{"event":"order.created","data":{},"id":"b-1"},{"event":"no.such","data":{},"id":"b-2"},{"event":"order.updated","data":{},"id":"order-1"},{"event":"order.created","data":{},"id":"b-1"}]`)
	var results []struct {
		ID        string
		Matched   int
		Duplicate bool
		Error     *struct{ Code, Field string }
	}
	batch.into(t, &results)
	if len(results) != 4 || results[0].Error != nil || results[0].Matched != 1 || results[1].ID != "b-2" || results[1].Error.Field != "event" || results[2].Error.Code != "id_conflict" || !results[3].Duplicate {
		t.Errorf("batch: %s", batch.raw)
	}
	lines := must(t, n, 202, "POST", "/api/events/batch", order+"\n\n"+order+"\r\n", "Content-Type: application/x-ndjson")
	if got := ids(t, lines); len(got) != 2 || !strings.HasPrefix(got[0], "evt_") || len(got[0]) != 36 || got[0] == got[1] {
		t.Errorf("NDJSON: %v", got)
	}
	rc.wait(t, 4)
}

// Lists come in pages: all rows, each once, also while rows arrive.
func TestPages(t *testing.T) {
	n := startNode(t, t.TempDir())
	rc := receive(t, func(*http.Request) int { return 400 })
	w := subscribe(t, n, rc.URL, `,"max_retries":1`)
	for range 6 {
		subscribe(t, n, rc.URL, `,"is_active":false`)
	}
	for range 23 {
		must(t, n, 202, "POST", "/api/events", order)
	}
	eventually(t, "23 dead letters", func() bool {
		return len(ids(t, must(t, n, 200, "GET", "/api/webhooks/"+w.ID+"/replay", ""))) == 23
	})
	for path, want := range map[string]int{"/api/webhooks": 7, "/api/webhooks/" + w.ID + "/logs": 23, "/api/webhooks/" + w.ID + "/replay": 23} {
		whole := ids(t, must(t, n, 200, "GET", path, ""))
		for _, limit := range []int{1, 7, 23} {
			var paged []string
			cursor := ""
			for page := 0; ; page++ {
				a := must(t, n, 200, "GET", fmt.Sprintf("%s?limit=%d&cursor=%s", path, limit, cursor), "")
				paged = append(paged, ids(t, a)...)
				if a.body.Next == nil {
					break
				}
				if cursor = *a.body.Next; page > want {
					t.Fatalf("%s does not end", path)
				}
				if page == 0 && strings.HasSuffix(path, "logs") {
					must(t, n, 200, "POST", "/api/webhooks/"+w.ID+"/test", "") // a new row at the front
				}
			}
			if len(whole) < want || !slices.Equal(paged, whole) {
				t.Errorf("%s by %d: %d rows, want %d\n%v\n%v", path, limit, len(paged), len(whole), paged, whole)
			}
			if strings.HasSuffix(path, "logs") {
				whole = ids(t, must(t, n, 200, "GET", path, "")) // with the tests since
			}
		}
	}
	if a := must(t, n, 200, "GET", "/api/webhooks/"+w.ID+"/logs?status=failed&limit=200&response_code=400&event=order.created", ""); len(ids(t, a)) < 23 {
		t.Errorf("filtered: %d rows", len(ids(t, a)))
	}
	if a := must(t, n, 200, "GET", "/api/webhooks/"+w.ID+"/logs?status=succeeded", ""); len(ids(t, a)) != 0 {
		t.Errorf("filtered: %s", a.raw)
	}
}

// A rotation: both secrets sign while the grace lasts.
func TestRotation(t *testing.T) {
	n := startNode(t, t.TempDir())
	rc := receive(t, ok)
	w := subscribe(t, n, rc.URL, "")
	old, _ := webhook.ParseSecret(w.Secret)
	rotate := must(t, n, 200, "POST", "/api/webhooks/"+w.ID+"/secret/rotate", "").object(t)
	next, err := webhook.ParseSecret(rotate["secret"].(string))
	if err != nil || rotate["secret"] == w.Secret {
		t.Fatalf("rotated to %v: %v", rotate["secret"], err)
	}
	must(t, n, 202, "POST", "/api/events", order)
	got := rc.wait(t, 1)[0]
	if err := verifyBoth(old, got.header, got.body); err != nil {
		t.Errorf("by the old secret: %v", err)
	}
	if h := got.header.Get("X-Webhook-Signature-Next"); h != string(next.AppendHex(nil, got.body)) {
		t.Errorf("X-Webhook-Signature-Next is %q", h)
	}
	if err := (&webhook.Verifier{Secrets: []*webhook.Secret{next}}).Verify(got.header, got.body); err != nil {
		t.Errorf("by the new secret: %v", err)
	}
	must(t, n, 200, "POST", "/api/webhooks/"+w.ID+"/secret/rotate", `{"finish":true}`)
	must(t, n, 202, "POST", "/api/events", order)
	got = rc.wait(t, 2)[1]
	if err := verifyBoth(next, got.header, got.body); err != nil || got.header.Get("X-Webhook-Signature-Next") != "" {
		t.Errorf("after the grace: %v, %v", err, got.header)
	}
}

// A test event is sent at once, to inactive webhooks too, and counts nowhere.
func TestTestEvents(t *testing.T) {
	n := startNode(t, t.TempDir())
	rc := receive(t, func(*http.Request) int { return 503 })
	w := subscribe(t, n, rc.URL, `,"is_active":false`)
	path := "/api/webhooks/" + w.ID
	a := must(t, n, 200, "POST", path+"/test", "").object(t)
	got := rc.wait(t, 1)[0]
	if a["status"] != "failed" || a["response_code"] != 503.0 || a["test"] != true || a["event"] != "order.created" || a["next_attempt_at"] != nil {
		t.Errorf("answer %v", a)
	}
	if got.header.Get("X-Webhook-Test") != "true" || !strings.HasPrefix(got.header.Get("webhook-id"), "evt_test_") {
		t.Errorf("headers %v", got.header)
	}
	must(t, n, 200, "POST", path+"/test", `{"event":"customer.created"}`)
	if e := rc.wait(t, 2)[1].header.Get("X-Webhook-Event"); e != "customer.created" {
		t.Errorf("event %s", e)
	}
	if s := must(t, n, 200, "GET", path+"/stats", "").object(t); s["deliveries"] != 0.0 || s["attempts"] != 0.0 {
		t.Errorf("stats %v", s)
	}
	if rows := ids(t, must(t, n, 200, "GET", path+"/logs", "")); len(rows) != 2 {
		t.Errorf("%d log rows", len(rows))
	}
	if letters := ids(t, must(t, n, 200, "GET", path+"/replay", "")); len(letters) != 0 {
		t.Errorf("dead letters %v", letters)
	}
}

// The open API is this machine's only; with a key it is the key's holder's.
func TestAccess(t *testing.T) {
	open := startNode(t, t.TempDir())
	for _, header := range []string{"Host: gateway.example", "X-Forwarded-For: 1.2.3.4", "Forwarded: for=1.2.3.4", "Via: 1.1 proxy", "Origin: https://evil.example", "Sec-Fetch-Site: cross-site"} {
		if a := ask(t, open, "GET", "/api/webhooks", "", header); a.status != 403 || !strings.Contains(a.body.Error.Message, "admin-key-file") {
			t.Errorf("%s: %d %s", header, a.status, a.raw)
		}
	}
	must(t, open, 200, "GET", "/api/webhooks", "", "Host: localhost:8080")
	key := filepath.Join(t.TempDir(), "admin.key")
	if err := os.WriteFile(key, []byte("0123456789abcdef-key\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	closed := startNode(t, t.TempDir(), "--admin-key-file", key)
	for _, header := range []string{"X-None: 1", "Authorization: Bearer wrong", "Authorization: Basic 0123456789abcdef-key"} {
		if a := ask(t, closed, "GET", "/api/webhooks", "", header); a.status != 401 {
			t.Errorf("%s: %d %s", header, a.status, a.raw)
		}
	}
	must(t, closed, 200, "GET", "/api/webhooks", "", "Authorization: Bearer 0123456789abcdef-key")
	must(t, closed, 200, "GET", "/healthz", "")
	must(t, closed, 200, "GET", "/readyz", "")
	// With a key, others may create webhooks: loopback is refused.
	a := must(t, closed, 201, "POST", "/api/webhooks", `{"name":"n","url":"http://127.0.0.1:1/","events":["*"]}`, "Authorization: Bearer 0123456789abcdef-key")
	if len(a.body.Warnings) != 1 || a.body.Warnings[0].Code != "destination_refused" {
		t.Errorf("warnings %+v", a.body.Warnings)
	}
}

// Mistakes in how the program is called: exit code 2, one line that helps.
func TestUsage(t *testing.T) {
	for _, args := range [][]string{{"serve", "--http-addr", "0.0.0.0:0"}, {"serve", "--retention", "x"}, {"serve", "--no-such"}, {"serve", "--max-event-bytes", "5"}, {"serve", "--tls-cert", "c"},
		{"serve", "--debug-addr", "0.0.0.0:1", "--http-addr", "127.0.0.1:0"}, {"no-such"}} {
		args = append(args, "--data-dir", t.TempDir())
		if code := run(args); code != 2 {
			t.Errorf("%v exits with %d", args, code)
		}
	}
	if code := run([]string{"version"}); code != 0 {
		t.Errorf("version exits with %d", code)
	}
}

// No secret in a log, at any level.
func TestSecretsStayOut(t *testing.T) {
	n := startNode(t, t.TempDir())
	rc := receive(t, func(*http.Request) int { return 500 })
	w := subscribe(t, n, rc.URL, `,"headers":{"Authorization":"Bearer top-secret-token"},"max_retries":1`)
	must(t, n, 202, "POST", "/api/events", order)
	rc.wait(t, 1)
	eventually(t, "a log row", func() bool {
		return len(ids(t, must(t, n, 200, "GET", "/api/webhooks/"+w.ID+"/logs", ""))) == 1
	})
	logs := must(t, n, 200, "GET", "/api/webhooks/"+w.ID+"/logs", "").raw
	must(t, n, 200, "POST", "/api/webhooks/"+w.ID+"/test", "")
	metrics, err := http.Get(n.url + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer metrics.Body.Close()
	n.stop()
	for name, text := range map[string]string{"the node's log": string(n.tail.lines), "the webhook's log": logs} {
		for _, secret := range []string{w.Secret, strings.TrimPrefix(w.Secret, "whsec_"), "top-secret-token"} {
			if strings.Contains(text, secret) {
				t.Errorf("%s tells a secret:\n%s", name, text)
			}
		}
	}
}

// What was accepted, and what became of it, is there after a restart.
func TestRestart(t *testing.T) {
	dir := t.TempDir()
	n := startNode(t, dir)
	rc := receive(t, func(r *http.Request) int {
		if r.URL.Path == "/down" {
			return 500
		}
		return 200
	})
	up := subscribe(t, n, rc.URL+"/up", "")
	down := subscribe(t, n, rc.URL+"/down", `,"max_retries":1`)
	must(t, n, 202, "POST", "/api/events", order)
	rc.wait(t, 2)
	before := map[string]string{}
	paths := []string{"/api/webhooks/" + up.ID, "/api/webhooks/" + up.ID + "/logs", "/api/webhooks/" + down.ID + "/replay", "/api/webhooks/" + down.ID + "/logs"}
	eventually(t, "the outcomes", func() bool {
		return len(ids(t, must(t, n, 200, "GET", paths[1], "")))+len(ids(t, must(t, n, 200, "GET", paths[2], ""))) == 2
	})
	for _, p := range paths {
		before[p] = string(must(t, n, 200, "GET", p, "").body.Data)
	}
	stats := must(t, n, 200, "GET", paths[0]+"/stats", "").object(t)
	n.kill()
	n = startNode(t, dir)
	for p, want := range before {
		if got := string(must(t, n, 200, "GET", p, "").body.Data); got != want {
			t.Errorf("%s was\n%s and is\n%s", p, want, got)
		}
	}
	if again := must(t, n, 200, "GET", paths[0]+"/stats", "").object(t); again["succeeded"] != stats["succeeded"] || again["p99"] != stats["p99"] {
		t.Errorf("statistics were %v and are %v", stats, again)
	}
	var letters []struct{ ID string }
	must(t, n, 200, "GET", paths[2], "").into(t, &letters)
	if a := must(t, n, 200, "POST", paths[2], `{"failure_ids":["`+letters[0].ID+`"]}`).object(t); a["replayed"] != 1.0 {
		t.Errorf("replayed %v", a)
	}
	rc.wait(t, 3)
}

// Deleting a webhook cancels what it has pending; its events still name it.
func TestDeletedWebhook(t *testing.T) {
	n := startNode(t, t.TempDir())
	rc := receive(t, func(*http.Request) int { return 500 })
	w := subscribe(t, n, rc.URL, `,"retry":{"initial_delay_ms":3600000,"max_delay_ms":3600000}`)
	must(t, n, 202, "POST", "/api/events", order, "Idempotency-Key: orphan")
	rc.wait(t, 1)
	must(t, n, 200, "DELETE", "/api/webhooks/"+w.ID, "")
	var event struct {
		Deliveries []struct {
			Status    string
			WebhookID string `json:"webhook_id"`
		}
	}
	must(t, n, 200, "GET", "/api/events/orphan", "").into(t, &event)
	if len(event.Deliveries) != 1 || event.Deliveries[0].Status != "cancelled" || event.Deliveries[0].WebhookID != w.ID {
		t.Errorf("%+v", event)
	}
}

func TestEventTypes(t *testing.T) {
	n := startNode(t, t.TempDir())
	var types []struct {
		Name   string
		Sample json.RawMessage
		Custom bool
	}
	must(t, n, 200, "GET", "/api/event-types", "").into(t, &types)
	if len(types) != 34 || types[0].Name != "order.created" || types[0].Sample == nil || types[0].Custom {
		t.Errorf("%d types, the first %+v", len(types), types[0])
	}
	for _, typ := range types {
		a := must(t, n, 202, "POST", "/api/events", `{"event":"`+typ.Name+`","data":`+compact(t, string(typ.Sample))+`}`)
		if len(a.body.Warnings) != 0 {
			t.Errorf("the sample of %s warns: %s", typ.Name, a.raw)
		}
	}
}

func TestDemo(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(self, "demo", "--once").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}
