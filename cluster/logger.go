package cluster

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"strings"

	"github.com/hashicorp/go-hclog"
)

// raftLogger carries raft's warnings and errors into the node's log.
func raftLogger(to *slog.Logger, g GroupID) hclog.Logger {
	return hclog.New(&hclog.LoggerOptions{
		Name: "raft", Level: hclog.Warn, DisableTime: true, Output: lineWriter{to.With("group", g)},
		// Every start of a group begins with an election: no reason to warn.
		Exclude: func(_ hclog.Level, message string, _ ...any) bool {
			return strings.HasPrefix(message, "heartbeat timeout reached")
		},
	})
}

// lineWriter logs each line that hclog writes, at its level.
type lineWriter struct{ to *slog.Logger }

func (w lineWriter) Write(p []byte) (int, error) {
	line := bytes.TrimSpace(p)
	level := slog.LevelWarn
	if rest, ok := bytes.CutPrefix(line, []byte("[ERROR]")); ok {
		level, line = slog.LevelError, rest
	} else if rest, ok := bytes.CutPrefix(line, []byte("[WARN]")); ok {
		line = rest
	}
	w.to.Log(context.Background(), level, "raft", "detail", string(bytes.TrimSpace(line)))
	return len(p), nil
}

// pebbleLogger drops what Pebble tells of its daily work.
type pebbleLogger struct{ to *slog.Logger }

func (l pebbleLogger) Infof(string, ...any) {}

func (l pebbleLogger) Errorf(format string, args ...any) {
	l.to.Error("database", "detail", fmt.Sprintf(format, args...))
}

func (l pebbleLogger) Fatalf(format string, args ...any) {
	l.to.Error("database", "detail", fmt.Sprintf(format, args...))
	panic(fmt.Sprintf(format, args...))
}
