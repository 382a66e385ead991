package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/omnisales/edgerelay/relay/catalogue"
)

// demoCmd shows the main job: a real node, a real receiver, real failures.
type demoCmd struct {
	Once bool `help:"End by itself; exit code 1 if anything was not as expected."`
}

// hook is a webhook of the demo and what its receiver is to see: one attempt
// for each entry of answers.
type hook struct {
	name    string
	events  []string
	says    string
	answers func(attempt int) int
	id      string
}

var demoHooks = []*hook{
	{name: "orders", events: []string{"order.*", "payment.*"}, says: "answers 200", answers: func(int) int { return 200 }},
	{name: "flaky", events: []string{"customer.created"}, says: "answers 503 twice, then 200", answers: func(n int) int {
		if n <= 2 {
			return 503
		}
		return 200
	}},
	{name: "down", events: []string{"product.inventory_low"}, says: "answers 500, always", answers: func(int) int { return 500 }},
}

// Run plays the demo. What was not as expected is collected, and told at the end.
func (c *demoCmd) Run(ctx context.Context) error {
	dir, err := os.MkdirTemp("", "edgerelay-demo-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	receiver, err := startDemoReceiver(demoHooks)
	if err != nil {
		return err
	}
	defer receiver.close()
	started := time.Now()
	node, err := startChild(ctx, "serve", "--data-dir", dir, "--http-addr", "127.0.0.1:0", "--log-format", "json")
	if err != nil {
		return fmt.Errorf("start a node: %w", err)
	}
	defer node.stop()
	fmt.Printf("A node       %s, up in %d ms, its data in %s\nA receiver   %s, checks both signatures of every request\n",
		node.url, time.Since(started).Milliseconds(), dir, receiver.url)
	d := &demo{node: node, receiver: receiver}
	play, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for _, act := range []func(context.Context) error{d.subscribe, d.publish, d.attempts, d.deadLetter, d.replay, d.account} {
		if err := act(play); err != nil {
			if ctx.Err() != nil {
				return nil // Ctrl-C
			}
			return err
		}
	}
	if len(d.wrong) > 0 {
		return errors.New("not as expected: " + strings.Join(d.wrong, "; "))
	}
	fmt.Println("\nEverything was as expected.")
	if c.Once {
		return nil
	}
	fmt.Printf("\nThe node stays up; try it, Ctrl-C ends it and removes its data:\n  curl %s/api/webhooks\n  curl %s/api/webhooks/%s/logs\n  curl -X POST %s/api/webhooks/%s/test\n",
		node.url, node.url, demoHooks[0].id, node.url, demoHooks[0].id)
	receiver.narrate(ctx, node)
	return nil
}

type demo struct {
	node     *child
	receiver *demoReceiver
	failure  string
	wrong    []string
}

func (d *demo) expect(ok bool, format string, args ...any) {
	if !ok {
		d.wrong = append(d.wrong, fmt.Sprintf(format, args...))
	}
}

func (d *demo) subscribe(ctx context.Context) error {
	fmt.Println("\nWebhooks")
	for _, h := range demoHooks {
		var made struct{ ID, Secret string }
		err := d.node.call(ctx, "POST", "/api/webhooks", map[string]any{"name": h.name, "url": d.receiver.url + "/" + h.name, "events": h.events}, &made)
		if err != nil {
			return err
		}
		h.id = made.ID
		if err := d.receiver.trust(h.name, made.Secret); err != nil {
			return err
		}
		fmt.Printf("  %-8s %-24s %s\n", h.name, strings.Join(h.events, ", "), h.says)
	}
	return nil
}

// publish sends the guide's sample events.
func (d *demo) publish(ctx context.Context) error {
	fmt.Println("\nPublished: a 202 says that the event is on disk")
	for _, name := range []string{"order.created", "payment.received", "customer.created", "product.inventory_low"} {
		sample, _ := catalogue.Lookup(name)
		var accepted struct {
			ID      string
			Matched int
		}
		before := time.Now()
		if err := d.node.call(ctx, "POST", "/api/events", map[string]any{"event": name, "data": json.RawMessage(sample.Sample)}, &accepted); err != nil {
			return err
		}
		fmt.Printf("  %-22s %s  matched %d, answered in %.1f ms\n", name, accepted.ID, accepted.Matched, float64(time.Since(before).Microseconds())/1000)
		d.expect(accepted.Matched == 1, "%s matched %d webhooks, not 1", name, accepted.Matched)
	}
	return nil
}

// attempts prints what arrives: two at once, three of flaky, three of down.
func (d *demo) attempts(ctx context.Context) error {
	fmt.Println("\nAttempts, as the receiver sees them")
	want := map[string][]int{"orders": {200, 200}, "flaky": {503, 503, 200}, "down": {500, 500, 500}}
	gaps := []time.Duration{0, time.Second, 2 * time.Second}
	seen := map[string][]int{}
	for range 8 {
		h, err := d.receiver.next(ctx)
		if err != nil {
			return fmt.Errorf("wait for 8 attempts, saw %v: %w", seen, err)
		}
		fmt.Println("  " + h.String())
		seen[h.hook] = append(seen[h.hook], h.status)
		d.expect(h.fault == nil, "%s: %v", h.hook, h.fault)
		if h.hook != "orders" {
			d.expect(h.attempt >= 1 && h.attempt <= 3 && h.gap >= gaps[h.attempt-1] && h.gap < gaps[h.attempt-1]+2*time.Second,
				"attempt %d of %s came %v after the one before", h.attempt, h.hook, h.gap)
		}
	}
	for name, statuses := range want {
		d.expect(fmt.Sprint(seen[name]) == fmt.Sprint(statuses), "%s saw %v, not %v", name, seen[name], statuses)
	}
	return nil
}

func (d *demo) down() *hook { return demoHooks[2] }

type deadLetter struct {
	ID        string
	Event     string
	Attempts  int
	LastError string `json:"last_error"`
	Status    string
}

func (d *demo) failures(ctx context.Context) ([]deadLetter, error) {
	var f []deadLetter
	err := d.node.call(ctx, "GET", "/api/webhooks/"+d.down().id+"/replay", nil, &f)
	return f, err
}

func (d *demo) deadLetter(ctx context.Context) error {
	return until(ctx, func() (bool, error) {
		f, err := d.failures(ctx)
		if err != nil || len(f) == 0 {
			return false, err
		}
		d.failure = f[0].ID
		fmt.Printf("\nDead letter\n  %s  %s: %d attempts, %s\n", f[0].ID, f[0].Event, f[0].Attempts, f[0].LastError)
		d.expect(len(f) == 1 && f[0].Attempts == 3 && f[0].Status == "dead", "the dead-letter queue holds %+v", f)
		return true, nil
	})
}

// replay mends the receiver, and sends the dead letter again.
func (d *demo) replay(ctx context.Context) error {
	d.receiver.mend("down")
	fmt.Println("\nThe receiver is mended; the dead letter is replayed")
	var answer struct{ Replayed int }
	if err := d.node.call(ctx, "POST", "/api/webhooks/"+d.down().id+"/replay", map[string]string{"failure_id": d.failure}, &answer); err != nil {
		return err
	}
	d.expect(answer.Replayed == 1, "replayed %d, not 1", answer.Replayed)
	h, err := d.receiver.next(ctx)
	if err != nil {
		return fmt.Errorf("wait for the replay: %w", err)
	}
	fmt.Println("  " + h.String())
	d.expect(h.hook == "down" && h.status == 200 && h.fault == nil, "the replay was %s", h)
	return until(ctx, func() (bool, error) {
		f, err := d.failures(ctx)
		if err != nil || len(f) != 1 || f[0].Status != "replayed" {
			return false, err
		}
		fmt.Printf("  %s  %s\n", f[0].ID, f[0].Status)
		return true, nil
	})
}

// account prints the node's own view, and compares.
func (d *demo) account(ctx context.Context) error {
	fmt.Println("\nThe node's account")
	for i, want := range []struct{ attempts, succeeded, failed int }{{2, 2, 0}, {3, 1, 0}, {4, 1, 0}} {
		h := demoHooks[i]
		var stats struct {
			Succeeded, Failed int
			Average           float64 `json:"average_response_time_ms"`
		}
		var logs []struct{ Status string }
		if err := d.node.call(ctx, "GET", "/api/webhooks/"+h.id+"/stats", nil, &stats); err != nil {
			return err
		}
		if err := d.node.call(ctx, "GET", "/api/webhooks/"+h.id+"/logs", nil, &logs); err != nil {
			return err
		}
		fmt.Printf("  %-8s %d attempts logged, %d delivered, %d dead-lettered, %.1f ms on average\n", h.name, len(logs), stats.Succeeded, stats.Failed, stats.Average)
		d.expect(len(logs) == want.attempts && stats.Succeeded == want.succeeded && stats.Failed == want.failed,
			"%s has %d attempts logged, %d delivered, %d dead, not %+v", h.name, len(logs), stats.Succeeded, stats.Failed, want)
	}
	return nil
}
