package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"time"
)

// The test binary is the program too: startChild runs it as a process of its
// own, which can be killed.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && !strings.HasPrefix(os.Args[1], "-") {
		os.Exit(run(os.Args[1:]))
	}
	os.Exit(m.Run())
}

// startNode runs `edgerelay serve` on a free port of loopback.
func startNode(t testing.TB, dir string, flags ...string) *child {
	t.Helper()
	args := append([]string{"serve", "--data-dir", dir, "--http-addr", "127.0.0.1:0", "--log-format", "json", "--log-level", "debug"}, flags...)
	c, err := startChild(t.Context(), args...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.stop)
	return c
}

// answer is what the API says.
type answer struct {
	status int
	header http.Header
	raw    string
	body   struct {
		Success  bool
		Data     json.RawMessage
		Next     *string `json:"next_cursor"`
		Warnings []struct{ Code, Field, Message string }
		Error    struct{ Code, Message, Field, ID string }
	}
}

func (a *answer) into(t testing.TB, out any) {
	t.Helper()
	if err := json.Unmarshal(a.body.Data, out); err != nil {
		t.Fatalf("%v in %s", err, a.raw)
	}
}

// object is the answer's data as it came.
func (a *answer) object(t testing.TB) map[string]any {
	t.Helper()
	var out map[string]any
	a.into(t, &out)
	return out
}

// ask makes a request; headers are "Name: value".
func ask(t testing.TB, c *child, method, path, body string, headers ...string) *answer {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, c.url+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		if name == "Host" {
			req.Host = value
		}
		req.Header.Set(name, value)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	a := &answer{status: resp.StatusCode, header: resp.Header, raw: string(raw)}
	if err := json.Unmarshal(raw, &a.body); err != nil {
		t.Fatalf("%s %s: %d %s: %v", method, path, resp.StatusCode, raw, err)
	}
	return a
}

// must is ask, for what has to succeed.
func must(t testing.TB, c *child, status int, method, path, body string, headers ...string) *answer {
	t.Helper()
	a := ask(t, c, method, path, body, headers...)
	if a.status != status || a.body.Success != (status < 300) {
		t.Fatalf("%s %s %s: %d %s, want %d", method, path, body, a.status, a.raw, status)
	}
	return a
}

type made struct{ ID, Secret string }

func subscribe(t testing.TB, c *child, url, more string) made {
	t.Helper()
	var m made
	must(t, c, 201, "POST", "/api/webhooks", `{"name":"test","url":"`+url+`","events":["order.*"]`+more+`}`).into(t, &m)
	return m
}

// delivery is a request that a receiver got.
type delivery struct {
	header http.Header
	body   []byte
}

// testReceiver keeps what comes, and answers as it is told.
type testReceiver struct {
	*httptest.Server
	mu   sync.Mutex
	got  []delivery
	came chan struct{}
}

func receive(t testing.TB, status func(r *http.Request) int) *testReceiver {
	rc := &testReceiver{came: make(chan struct{}, 1)}
	rc.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		rc.mu.Lock()
		rc.got = append(rc.got, delivery{r.Header, body})
		rc.mu.Unlock()
		w.WriteHeader(status(r))
		select {
		case rc.came <- struct{}{}:
		default: // waiters look anyway
		}
	}))
	t.Cleanup(rc.Close)
	return rc
}

func ok(*http.Request) int { return 200 }

// wait waits until n requests came in all.
func (rc *testReceiver) wait(t testing.TB, n int) []delivery {
	t.Helper()
	limit := time.After(20 * time.Second)
	for {
		rc.mu.Lock()
		got := rc.got
		rc.mu.Unlock()
		if len(got) >= n {
			return got
		}
		select {
		case <-rc.came:
		case <-limit:
			t.Fatalf("%d requests came, not %d", len(got), n)
		}
	}
}

// eventually asks until the answer satisfies.
func eventually(t testing.TB, what string, ready func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := until(ctx, func() (bool, error) { return ready(), nil }); err != nil {
		t.Fatalf("%s: %v", what, err)
	}
}

func ids(t testing.TB, a *answer) []string {
	t.Helper()
	var rows []struct{ ID string }
	a.into(t, &rows)
	out := []string{}
	for _, r := range rows {
		out = append(out, r.ID)
	}
	return out
}

func compact(t testing.TB, text string) string {
	t.Helper()
	var b bytes.Buffer
	if err := json.Compact(&b, []byte(text)); err != nil {
		t.Fatal(err)
	}
	return b.String()
}
