package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"syscall"
	"time"
)

// child is this program once more, as a process of its own: a node with its
// own data, or a part of bench. It tells where it listens in its first log
// line that has an "api".
type child struct {
	url  string
	cmd  *exec.Cmd
	done chan struct{} // closed when it ended; err is set
	err  error
	tail lastLines
}

// startChild starts the program and waits until it listens.
func startChild(ctx context.Context, args ...string) (*child, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	c := &child{cmd: exec.Command(self, args...), done: make(chan struct{})}
	stderr, err := c.cmd.StderrPipe()
	if err != nil {
		return nil, err
	}
	if err := c.cmd.Start(); err != nil {
		return nil, err
	}
	up := make(chan string, 1)
	go func() {
		defer close(c.done)
		c.tail.read(stderr, up)
		c.err = c.cmd.Wait()
	}()
	select {
	case c.url = <-up:
		return c, nil
	case <-c.done:
		return nil, fmt.Errorf("%s ended before it listened: %v\n%s", args[0], c.err, c.tail.lines)
	case <-ctx.Done():
		c.kill()
		return nil, ctx.Err()
	}
}

// lastLines keeps the end of a child's log, for when it fails.
type lastLines struct{ lines []byte }

func (l *lastLines) read(r io.Reader, up chan<- string) {
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		var line struct{ API string }
		if json.Unmarshal(lines.Bytes(), &line) == nil && line.API != "" {
			select {
			case up <- line.API:
			default:
			}
		}
		l.lines = append(append(l.lines, lines.Bytes()...), '\n')
		l.lines = l.lines[max(0, len(l.lines)-8<<10):]
	}
}

// stop asks the child to end, and waits for it.
func (c *child) stop() {
	_ = c.cmd.Process.Signal(syscall.SIGTERM) // it may have ended
	select {
	case <-c.done:
	case <-time.After(30 * time.Second):
		c.kill()
	}
}

func (c *child) kill() {
	_ = c.cmd.Process.Kill()
	<-c.done
}

// call makes a request of the API and reads the answer's data into out.
func (c *child) call(ctx context.Context, method, path string, in, out any) error {
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return err
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, c.url+path, body)
	if err != nil {
		return err
	}
	if in != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	var answer struct {
		Success bool
		Data    json.RawMessage
		Error   struct{ Code, Message string }
	}
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
		return fmt.Errorf("%s %s: %s: %w", method, path, resp.Status, err)
	}
	if !answer.Success {
		return fmt.Errorf("%s %s: %s: %s", method, path, answer.Error.Code, answer.Error.Message)
	}
	if out == nil {
		return nil
	}
	return json.Unmarshal(answer.Data, out)
}

// until asks again, every 20 ms, until ready says so or ctx ends.
func until(ctx context.Context, ready func() (bool, error)) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		ok, err := ready()
		if ok || err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return errors.Join(errors.New("gave up waiting"), ctx.Err())
		}
	}
}
