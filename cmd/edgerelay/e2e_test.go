//go:build e2e

package main

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/omnisales/edgerelay/relay/catalogue"
	"github.com/omnisales/edgerelay/sdk/webhook"
)

const receivers = "../../testdata/receivers"

// block is the n-th fenced block of a language under a heading of the guide,
// as it stands there.
func block(t *testing.T, heading, language string, n int) string {
	t.Helper()
	text, err := os.ReadFile("../../testdata/guide.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, ok := strings.Cut(string(text), "\n"+heading+"\n")
	for range n + 1 {
		if ok {
			_, section, ok = strings.Cut(section, "```"+language+"\n")
		}
	}
	code, _, end := strings.Cut(section, "\n```")
	if !ok || !end {
		t.Fatalf("the guide has no %s block %d under %s", language, n, heading)
	}
	return code + "\n"
}

// sample is a receiver program: what runs it, its source, where it listens.
type sample struct {
	name, file, path string
	source           func(t *testing.T, port, secret string) string
	command          func(file, port string) []string
	twoHundred       int
}

func swap(t *testing.T, text string, pairs ...string) string {
	t.Helper()
	for i := 0; i < len(pairs); i += 2 {
		if !strings.Contains(text, pairs[i]) {
			t.Fatalf("the sample has no %q", pairs[i])
		}
		text = strings.ReplaceAll(text, pairs[i], pairs[i+1])
	}
	return text
}

func readFile(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(receivers, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func node(file, _ string) []string { return []string{"node", file} }

func python(module ...string) func(file, port string) []string {
	return func(file, port string) []string {
		args := []string{".venv/bin/python", "-m"}
		for _, m := range module {
			args = append(args, strings.NewReplacer("FILE", strings.TrimSuffix(filepath.Base(file), ".py"), "PORT", port).Replace(m))
		}
		return args
	}
}

// The guide's programs, with nothing changed but port and secret, and two that
// verify with the published libraries.
var samples = []sample{
	{"express", "sample-express.js", "/webhooks/omni", func(t *testing.T, port, _ string) string {
		return swap(t, block(t, "### Node.js (Express)", "javascript", 0), "3000", port)
	}, node, 200},
	{"express middleware", "sample-middleware.js", "/webhooks", func(t *testing.T, port, secret string) string {
		// The guide shows a part: what stands around it in every Express program.
		part := swap(t, block(t, "#### Verifying the Signature", "javascript", 0), "YOUR_WEBHOOK_SECRET", "'"+secret+"'")
		return "const app = require('express')();\napp.use(require('express').json());\n" + part + "app.listen(" + port + ");\n"
	}, node, 200},
	{"flask", "sample_flask.py", "/webhooks", func(t *testing.T, _, secret string) string {
		return swap(t, block(t, "#### Verifying the Signature", "python", 0), "YOUR_SECRET", "'"+secret+"'")
	}, python("flask", "--app", "FILE", "run", "--port", "PORT"), 200},
	{"fastapi", "sample_fastapi.py", "/webhooks/omni", func(t *testing.T, _, secret string) string {
		return swap(t, block(t, "### Python (FastAPI)", "python", 0), "your_webhook_secret", secret)
	}, python("uvicorn", "FILE:app", "--port", "PORT", "--log-level", "warning"), 200},
	{"standard webhooks for JavaScript", "sample-standard.js", "/webhooks", func(t *testing.T, _, _ string) string { return readFile(t, "standard.js") }, node, 204},
	{"standard webhooks for Python", "sample_standard.py", "/webhooks", func(t *testing.T, _, _ string) string { return readFile(t, "standard.py") }, python("flask", "--app", "FILE", "run", "--port", "PORT"), 204},
}

// start runs the program until the test ends; logs go to the test's.
func (s *sample) start(t *testing.T, secret string) (url string) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(l.Addr().String())
	l.Close()
	// Beside node_modules, where node looks for what the program requires.
	file := filepath.Join(receivers, s.file)
	if err := os.WriteFile(file, []byte(s.source(t, port, secret)), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.Remove(file) })
	args := s.command(filepath.Base(file), port)
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Dir = receivers
	if !filepath.IsAbs(args[0]) && strings.Contains(args[0], "/") {
		if cmd.Path, err = filepath.Abs(filepath.Join(receivers, args[0])); err != nil {
			t.Fatal(err)
		}
	}
	cmd.Env = append(os.Environ(), "WEBHOOK_SECRET="+secret, "PORT="+port, "PYTHONDONTWRITEBYTECODE=1")
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGKILL)
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("%s said:\n%s", s.name, out.String())
		}
	})
	eventually(t, s.name+" to listen", func() bool {
		c, err := net.DialTimeout("tcp", "127.0.0.1:"+port, time.Second)
		if err == nil {
			c.Close()
		}
		return err == nil
	})
	return "http://127.0.0.1:" + port + s.path
}

// Bodies that a receiver which parses and writes again gets wrong, unless what
// was sent is in ECMAScript's form already.
var tricky = []string{
	`{"price":1.0,"big":1e21,"small":1e-7,"zero":-0,"exp":1E2,"frac":0.1e1}`,
	`{"10":"ten","9":"nine","b":1,"01":"not an index","a":2,"4294967294":"index","4294967295":"none"}`,
	`{"html":"<script>&'\"","slash":"\/","controls":"\u0000\u001f\u007f\b\f\n\r\t","line":"\u2028\u2029"}`,
	`{"umlaut":"\u00e4ö","emoji":"\ud83d\ude00😀","lone":"\ud800x\udfff"}`,
	`{"empty":{},"list":[],"null":null,"nested":[[{"a":[1,2,{"b":false}]}]], "" : "" }`,
	`{"__proto__":{"a":1},"constructor":"c","toString":1}`,
}

func TestSamplesVerifyWhatArrives(t *testing.T) {
	n := startNode(t, t.TempDir())
	for _, s := range samples {
		t.Run(s.name, func(t *testing.T) {
			fresh, err := webhook.NewSecret(rand.Reader)
			if err != nil {
				t.Fatal(err)
			}
			url := s.start(t, fresh.Reveal())
			channel := strings.NewReplacer(" ", "-").Replace(s.name)
			hook := subscribe(t, n, url, `,"max_retries":1,"channels":["`+channel+`"],"secret":"`+fresh.Reveal()+`"`)
			must(t, n, 200, "PATCH", "/api/webhooks/"+hook.ID, `{"events":["*"]}`)
			wrong := subscribe(t, n, url, `,"max_retries":1,"channels":["`+channel+`"]`)
			var events []string
			for _, typ := range catalogue.All() {
				events = append(events, fmt.Sprintf(`{"event":%q,"data":%s,"channels":[%q]}`, typ.Name, typ.Sample, channel))
			}
			for _, data := range tricky {
				events = append(events, fmt.Sprintf(`{"event":"email.sent","data":%s,"channels":[%q]}`, data, channel))
			}
			for _, e := range events {
				must(t, n, 202, "POST", "/api/events", e)
			}
			var rows []struct {
				Status       string
				Event        string
				ResponseCode int `json:"response_code"`
				Error        *string
				Response     struct{ Body string }
			}
			eventually(t, "all attempts", func() bool {
				must(t, n, 200, "GET", "/api/webhooks/"+hook.ID+"/logs?limit=200", "").into(t, &rows)
				return len(rows) == len(events)
			})
			for _, row := range rows {
				if row.Status != "succeeded" || row.ResponseCode != s.twoHundred {
					t.Errorf("%s: %s with %d %s", row.Event, row.Status, row.ResponseCode, row.Response.Body)
				}
			}
			eventually(t, "the refusal of a wrong signature", func() bool {
				must(t, n, 200, "GET", "/api/webhooks/"+wrong.ID+"/logs?status=failed", "").into(t, &rows)
				return len(rows) > 0
			})
			if rows[0].ResponseCode != 401 {
				t.Errorf("a wrong signature was answered %d", rows[0].ResponseCode)
			}
		})
	}
}

// curl runs a line of the guide with nothing but the host changed.
func curl(t *testing.T, n *child, line string) map[string]any {
	t.Helper()
	line = swap(t, line, "https://your-domain.com", n.url)
	out, err := exec.Command("bash", "-c", strings.Replace(line, "curl ", "curl -sS ", 1)).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v: %s", line, err, out)
	}
	var got map[string]any
	if err := json.Unmarshal(out, &got); err != nil {
		t.Fatalf("%s: %s", line, out)
	}
	return got
}

// Every request that the guide shows, and the answer that it shows.
func TestGuideRequests(t *testing.T) {
	n := startNode(t, t.TempDir())
	got := curl(t, n, block(t, "#### Via API", "bash", 0))
	var want map[string]any
	if err := json.Unmarshal([]byte(block(t, "#### Via API", "json", 0)), &want); err != nil {
		t.Fatal(err)
	}
	data, shown := got["data"].(map[string]any), want["data"].(map[string]any)
	for field, value := range shown {
		switch field {
		case "id", "secret", "created_at":
			if fmt.Sprintf("%T", data[field]) != fmt.Sprintf("%T", value) || data[field] == "" {
				t.Errorf("%s is %v, the guide shows %v", field, data[field], value)
			}
		default:
			if fmt.Sprint(data[field]) != fmt.Sprint(value) {
				t.Errorf("%s is %v, the guide shows %v", field, data[field], value)
			}
		}
	}
	if got["success"] != true || !strings.HasPrefix(data["secret"].(string), "whsec_") {
		t.Errorf("answer %v", got)
	}
	whitelist := block(t, "### IP Whitelist", "json", 0)
	must(t, n, 201, "POST", "/api/webhooks", whitelist)
	rc := receive(t, func(*http.Request) int { return 500 })
	w := subscribe(t, n, rc.URL, `,"max_retries":1`)
	attempt := curl(t, n, strings.ReplaceAll(block(t, "### Using the API", "bash", 0), "{webhook_id}", w.ID))
	if a := attempt["data"].(map[string]any); a["status"] != "failed" || a["response_code"] != 500.0 {
		t.Errorf("test: %v", attempt)
	}
	// "GET …" and "POST …" with a body, as the guide writes them.
	must(t, n, 202, "POST", "/api/events", order)
	text := strings.ReplaceAll(block(t, "### Dead Letter Queue", "bash", 0), "{webhook_id}", w.ID)
	lines := strings.Split(text, "\n")
	get, post, body := lines[1], lines[4], strings.Join(lines[5:], "\n")
	var letters []struct{ ID, Status string }
	eventually(t, "the dead letter", func() bool {
		must(t, n, 200, "GET", strings.TrimPrefix(get, "GET "), "").into(t, &letters)
		return len(letters) == 1
	})
	must(t, n, 200, "POST", strings.TrimPrefix(post, "POST "), swap(t, body, "fail_abc123", letters[0].ID))
}
