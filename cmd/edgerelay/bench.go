package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"time"
)

// benchCmd measures this build on this machine: a node, a receiver and a load
// as processes, with the node's defaults.
type benchCmd struct {
	Fanout     []int  `default:"1,10,100" help:"Webhooks that get every event."`
	Deliveries int    `default:"200000" help:"Deliveries of a measurement."`
	Batch      int    `default:"100" help:"Events of a batch publish."`
	Conns      int    `default:"64" help:"Connections of the load."`
	DataDir    string `help:"Where the node's data goes, on the disk to be measured; removed at the end. Default: a temporary folder."`
	Output     string `short:"o" enum:"text,json" default:"text" help:"text or json."`
	DebugAddr  string `help:"Where the node serves its profiles."`
}

// benchRow is one measurement: a fan-out and a way to publish, first in a
// closed loop, as fast as it goes, then in an open loop at a third of that.
type benchRow struct {
	Fanout           int     `json:"fanout"`
	Batch            int     `json:"batch"`
	AcceptedPerS     float64 `json:"accepted_per_s"`
	DeliveredPerS    float64 `json:"delivered_per_s"`
	OfBare           float64 `json:"of_bare"`
	AnswerP99MS      float64 `json:"answer_p99_ms"`
	CPUPerDeliveryUS float64 `json:"node_cpu_us_per_delivery"`
	BytesPerDelivery float64 `json:"node_bytes_written_per_delivery"`
	RSSMB            float64 `json:"node_rss_mb"`
	Refused          int64   `json:"refused"`
	Open             struct {
		EventsPerS float64 `json:"events_per_s"`
		P50MS      float64 `json:"p50_ms"`
		P99MS      float64 `json:"p99_ms"`
	} `json:"open"`
}

type benchReport struct {
	Version    string     `json:"version"`
	Cores      int        `json:"cores"`
	BarePerS   float64    `json:"bare_per_s"` // the mean of before and after
	BareBefore float64    `json:"bare_before_per_s"`
	BareAfter  float64    `json:"bare_after_per_s"`
	Rows       []benchRow `json:"rows"`
}

// Run measures everything; a lost, doubled or wrongly signed delivery fails it.
func (c *benchCmd) Run(ctx context.Context) error {
	receiver, err := startChild(ctx, "bench-receiver")
	if err != nil {
		return err
	}
	defer receiver.stop()
	b := &bench{cmd: c, receiver: receiver}
	report := benchReport{Version: version(), Cores: runtime.NumCPU()}
	if report.BareBefore, err = b.bare(ctx); err != nil {
		return err
	}
	b.say("bare limit: %.0f requests/s straight to the receiver\n", report.BareBefore)
	for _, fanout := range c.Fanout {
		for _, batch := range []int{1, c.Batch} {
			row, err := b.measure(ctx, fanout, batch)
			if err != nil {
				return fmt.Errorf("fan-out %d, batch %d: %w", fanout, batch, err)
			}
			report.Rows = append(report.Rows, *row)
			b.say("fan-out %d, batch %d: %.0f accepted/s, %.0f delivered/s\n", fanout, batch, row.AcceptedPerS, row.DeliveredPerS)
		}
	}
	if report.BareAfter, err = b.bare(ctx); err != nil {
		return err
	}
	report.BarePerS = (report.BareBefore + report.BareAfter) / 2
	for i := range report.Rows {
		report.Rows[i].OfBare = report.Rows[i].DeliveredPerS / report.BarePerS
	}
	return report.print(c.Output)
}

func (r *benchReport) print(output string) error {
	if output == "json" {
		e := json.NewEncoder(os.Stdout)
		e.SetIndent("", "  ")
		return e.Encode(r)
	}
	fmt.Printf("\nedgerelay %s, %d cores; bare limit %.0f/s before, %.0f/s after. Nothing lost, doubled or wrongly signed.\n\n", r.Version, r.Cores, r.BareBefore, r.BareAfter)
	fmt.Println("| fan-out | publish | accepted/s | delivered/s | of bare | 202 p99 | a third of it: p50 | p99 | node CPU a delivery | written a delivery | RSS |")
	fmt.Println("| ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
	for _, w := range r.Rows {
		publish := "single"
		if w.Batch > 1 {
			publish = "batch of " + strconv.Itoa(w.Batch)
		}
		fmt.Printf("| %d | %s | %.0f | %.0f | %.0f %% | %.1f ms | %.1f ms | %.1f ms | %.0f µs | %.0f B | %.0f MB |\n", w.Fanout, publish, w.AcceptedPerS, w.DeliveredPerS, w.OfBare*100,
			w.AnswerP99MS, w.Open.P50MS, w.Open.P99MS, w.CPUPerDeliveryUS, w.BytesPerDelivery, w.RSSMB)
	}
	return nil
}

type bench struct {
	cmd      *benchCmd
	receiver *child
}

func (b *bench) say(format string, args ...any) { fmt.Fprintf(os.Stderr, format, args...) }

// load runs the load as a process.
func (b *bench) load(ctx context.Context, args ...string) (*benchSent, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, self, append([]string{"bench-load", "--conns", strconv.Itoa(b.cmd.Conns)}, args...)...)
	var failure bytes.Buffer
	cmd.Stderr = &failure
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("load: %w: %s", err, strings.TrimSpace(failure.String()))
	}
	var sent benchSent
	return &sent, json.Unmarshal(out, &sent)
}

// bare is the limit that no gateway between the two can pass: the load posts
// a delivery, signed, straight to the receiver.
func (b *bench) bare(ctx context.Context) (float64, error) {
	const secret = "whsec_YmFyZSBsaW1pdCBiYXJlIGxpbWl0IGJhcmU="
	if err := b.phase(ctx, benchPhase{Secrets: []string{secret}}); err != nil {
		return 0, err
	}
	sent, err := b.load(ctx, "--target", b.receiver.url+"/bare", "--bare", secret, "--events", strconv.Itoa(b.cmd.Deliveries))
	if err != nil {
		return 0, err
	}
	return float64(sent.Accepted) / sent.Seconds, nil
}

func (b *bench) phase(ctx context.Context, p benchPhase) error {
	body, err := json.Marshal(p)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, "POST", b.receiver.url+"/phase", bytes.NewReader(body))
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != 200 {
		return errors.New("receiver: " + resp.Status)
	}
	return nil
}

// measure runs a closed and an open loop against a fresh node.
func (b *bench) measure(ctx context.Context, fanout, batch int) (*benchRow, error) {
	dir, err := os.MkdirTemp(b.cmd.DataDir, "edgerelay-bench-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	args := []string{"serve", "--data-dir", dir, "--http-addr", "127.0.0.1:0", "--log-format", "json"}
	if b.cmd.DebugAddr != "" {
		args = append(args, "--debug-addr", b.cmd.DebugAddr)
	}
	node, err := startChild(ctx, args...)
	if err != nil {
		return nil, err
	}
	defer node.stop()
	secrets := make([]string, fanout)
	for i := range secrets {
		var made struct{ Secret string }
		hook := map[string]any{"name": "bench", "url": fmt.Sprintf("%s/h/%d", b.receiver.url, i), "events": []string{"order.*"}}
		if err := node.call(ctx, "POST", "/api/webhooks", hook, &made); err != nil {
			return nil, err
		}
		secrets[i] = made.Secret
	}
	row := &benchRow{Fanout: fanout, Batch: batch}
	events := max(b.cmd.Deliveries/fanout, 1)
	// The first tenth warms up: connections, pools, the compiled webhooks.
	if _, _, err := b.run(ctx, node, secrets, max(events/10, 1), batch, 0); err != nil {
		return nil, err
	}
	before, err := usageOf(node.cmd.Process.Pid)
	if err != nil {
		return nil, err
	}
	sent, seen, err := b.run(ctx, node, secrets, events, batch, 0)
	if err != nil {
		return nil, err
	}
	after, err := usageOf(node.cmd.Process.Pid)
	if err != nil {
		return nil, err
	}
	deliveries := float64(seen.Received)
	row.AcceptedPerS = float64(events) / sent.Seconds
	row.DeliveredPerS = deliveries / (float64(seen.LastUS-sent.StartUS) / 1e6)
	row.AnswerP99MS, row.Refused = sent.P99MS, sent.Refused
	row.CPUPerDeliveryUS = (after.cpu - before.cpu).Seconds() * 1e6 / deliveries
	row.BytesPerDelivery = float64(after.written-before.written) / deliveries
	row.RSSMB = float64(after.rss) / (1 << 20)
	// A third of what it can deliver, for at most as long.
	row.Open.EventsPerS = row.DeliveredPerS / float64(fanout) / 3
	_, seen, err = b.run(ctx, node, secrets, max(events/3, 1), batch, row.Open.EventsPerS)
	if err != nil {
		return nil, err
	}
	row.Open.P50MS, row.Open.P99MS = seen.P50MS, seen.P99MS
	return row, nil
}

// run publishes, waits until every webhook has every event, and makes sure
// that nothing was lost, doubled or wrongly signed.
func (b *bench) run(ctx context.Context, node *child, secrets []string, events, batch int, rate float64) (*benchSent, *benchSeen, error) {
	if err := b.phase(ctx, benchPhase{Secrets: secrets, Events: events}); err != nil {
		return nil, nil, err
	}
	sent, err := b.load(ctx, "--target", node.url+path(batch), "--events", strconv.Itoa(events), "--batch", strconv.Itoa(batch), "--rate", strconv.FormatFloat(rate, 'f', 1, 64))
	if err != nil {
		return nil, nil, err
	}
	want := int64(events * len(secrets))
	var seen benchSeen
	progress := time.Now()
	err = until(ctx, func() (bool, error) {
		before := seen.Received
		if err := b.seen(ctx, &seen); err != nil {
			return false, err
		}
		if seen.Received > before {
			progress = time.Now()
		}
		if time.Since(progress) > 30*time.Second {
			return false, fmt.Errorf("lost: of %d deliveries %d came, and no more in 30 s", want, seen.Received)
		}
		return seen.Received == want, nil
	})
	if err == nil && seen.Doubled+seen.Forged > 0 {
		err = fmt.Errorf("%d deliveries doubled, %d wrongly signed", seen.Doubled, seen.Forged)
	}
	return sent, &seen, err
}

func path(batch int) string {
	if batch == 1 {
		return "/api/events"
	}
	return "/api/events/batch"
}

func (b *bench) seen(ctx context.Context, out *benchSeen) error {
	req, err := http.NewRequestWithContext(ctx, "GET", b.receiver.url+"/phase", nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	return json.NewDecoder(resp.Body).Decode(out)
}
