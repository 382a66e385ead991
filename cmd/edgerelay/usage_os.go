package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// processUsage is what a process has used, from Linux's /proc.
type processUsage struct {
	cpu     time.Duration // user and system
	written int64         // bytes sent to the disk
	rss     int64         // bytes resident now
}

// usageOf reads proc(5): stat's fields 14 and 15 in ticks of 10 ms, field 24
// in pages; io's write_bytes.
func usageOf(pid int) (processUsage, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return processUsage{}, fmt.Errorf("measure the node (needs Linux): %w", err)
	}
	// The name in parentheses may hold anything; what follows is numbers.
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	number := func(field int) int64 {
		n, _ := strconv.ParseInt(fields[field-3], 10, 64)
		return n
	}
	u := processUsage{cpu: time.Duration(number(14)+number(15)) * 10 * time.Millisecond, rss: number(24) * int64(os.Getpagesize())}
	io, err := os.ReadFile(fmt.Sprintf("/proc/%d/io", pid))
	if err != nil {
		return u, fmt.Errorf("measure the node's writes: %w", err)
	}
	for line := range strings.Lines(string(io)) {
		if value, ok := strings.CutPrefix(line, "write_bytes: "); ok {
			u.written, err = strconv.ParseInt(strings.TrimSpace(value), 10, 64)
		}
	}
	return u, err
}
