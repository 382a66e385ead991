//go:build ecmascript

package canonical

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"math"
	"math/rand/v2"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"
)

var (
	ecmaSeed   = flag.Uint64("ecmascript.seed", 0, "seed; 0: a new one")
	ecmaValues = flag.Int("ecmascript.values", 50_000, "values compared")
)

const engine = `
const rl = require('readline').createInterface({input: process.stdin});
rl.on('line', l => process.stdout.write(JSON.stringify(JSON.stringify(JSON.parse(JSON.parse(l)))) + '\n'));`

// TestAgainstECMAScript compares with a live engine (node).
func TestAgainstECMAScript(t *testing.T) {
	seed := *ecmaSeed
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	t.Logf("seed %d", seed)
	cmd := exec.Command("node", "-e", engine)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer in.Close()
	g := generator{rand.New(rand.NewPCG(seed, 7))}
	answers := bufio.NewReaderSize(out, 1<<20)
	const batch = 500
	for done := 0; done < *ecmaValues; done += batch {
		var inputs []string
		var lines strings.Builder
		for range batch {
			v := g.value(4)
			inputs = append(inputs, v)
			line, _ := json.Marshal(v)
			lines.Write(line)
			lines.WriteByte('\n')
		}
		go fmt.Fprint(in, lines.String())
		for _, input := range inputs {
			line, err := answers.ReadString('\n')
			if err != nil {
				t.Fatal(err)
			}
			compare(t, input, line)
		}
	}
}

func compare(t *testing.T, input, line string) {
	t.Helper()
	// The engine's answer is a JSON string of ASCII and raw text; lone
	// surrogates of the value are escapes of escapes in it.
	var want string
	if err := json.Unmarshal([]byte(line), &want); err != nil {
		t.Fatal(err)
	}
	got, inexact, err := Append(nil, []byte(input))
	switch {
	case err != nil:
		if !strings.Contains(err.Error(), "twice") {
			t.Errorf("%s: %v", input, err)
		}
	case len(inexact) > 0: // keeps digits that the engine loses
	case string(got) != want:
		t.Errorf("%s\n got %s\nwant %s", input, got, want)
	}
}

type generator struct{ *rand.Rand }

func (g generator) value(depth int) string {
	switch n := g.IntN(10); {
	case depth > 0 && n < 2:
		var parts []string
		for range g.IntN(5) {
			parts = append(parts, g.value(depth-1))
		}
		return "[" + strings.Join(parts, " , ") + "]"
	case depth > 0 && n < 5:
		var parts []string
		for range g.IntN(25) {
			parts = append(parts, g.key()+" : "+g.value(depth-1))
		}
		return "{" + strings.Join(parts, ",") + "}"
	case n < 8:
		return g.number()
	case n < 9:
		return g.str()
	}
	return []string{"true", "false", "null"}[g.IntN(3)]
}

func (g generator) key() string {
	switch g.IntN(3) {
	case 0:
		return `"` + strconv.FormatUint(g.Uint64()>>g.IntN(64), 10) + `"`
	case 1:
		return `"` + strconv.Itoa(g.IntN(30)) + `"`
	}
	return g.str()
}

func (g generator) number() string {
	switch g.IntN(6) {
	case 0:
		return strconv.FormatInt(int64(g.Uint64()>>g.IntN(64)), 10)
	case 1:
		return "-" + strconv.FormatUint(g.Uint64()>>g.IntN(64), 10)
	case 2:
		return fmt.Sprintf("%d.%dE%+d", g.IntN(1000), g.IntN(100000), g.IntN(40)-20)
	case 3:
		return strconv.FormatFloat(float64(g.IntN(1_000_000))/100, 'f', g.IntN(5), 64)
	}
	for {
		if f := math.Float64frombits(g.Uint64()); !math.IsNaN(f) && !math.IsInf(f, 0) {
			return strconv.FormatFloat(f, "eg"[g.IntN(2)], -1, 64)
		}
	}
}

func (g generator) str() string {
	var b strings.Builder
	b.WriteByte('"')
	for range g.IntN(8) {
		switch g.IntN(6) {
		case 0:
			fmt.Fprintf(&b, `\u%04X`, g.IntN(0x10000))
		case 1:
			fmt.Fprintf(&b, `\ud8%02x\udc%02x`, g.IntN(256), g.IntN(256))
		case 2:
			b.WriteString([]string{`\n`, `\"`, `\\`, `\/`, `\b`, `\f`, `\r`, `\t`}[g.IntN(8)])
		case 3:
			b.WriteRune(rune(0x80 + g.IntN(0xd000)))
		default:
			b.WriteByte("abcXYZ 019<>&'"[g.IntN(14)])
		}
	}
	b.WriteByte('"')
	return b.String()
}
