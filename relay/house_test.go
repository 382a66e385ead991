package relay_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/omnisales/edgerelay/"

// homes are the heavy dependencies: each stays behind the rooms that wrap it,
// so that it can be replaced there and read about there.
var homes = map[string][]string{
	"github.com/hashicorp/raft":     {"cluster"},
	"github.com/cockroachdb/pebble": {"cluster"},
	"github.com/valyala/fasthttp":   {"relay/api", "relay/deliver/wire", "cmd/edgerelay"}, // server; client; the receiver and load of bench
	"github.com/alecthomas/kong":    {"cmd/edgerelay"},
	"github.com/goccy/go-yaml":      {"cmd/edgerelay"},
	"github.com/prometheus":         {"relay/api", "cmd/edgerelay"},
	"github.com/tetratelabs/wazero": {"plugins"},
	"github.com/hashicorp/go-hclog": {"cluster"},
	"github.com/cespare/xxhash":     {"relay", "cluster"},
}

// pure rooms give the same answer to the same input, on every node and in
// every test: time, ids and randomness are handed in.
var pure = []string{"relay", "relay/state", "relay/canonical", "relay/retry", "relay/access", "relay/registry", "relay/catalogue"}

// adapters know the words and the pure rooms, never each other: cmd/edgerelay
// joins them.
var adapters = []string{"relay/api", "relay/intake", "relay/deliver", "relay/replica", "relay/ui", "plugins"}

func TestHouse(t *testing.T) {
	rooms := parseRooms(t)
	if len(rooms) < 15 {
		t.Fatalf("only %d packages found", len(rooms))
	}
	for room, files := range rooms {
		documented := false
		for _, f := range files {
			documented = documented || f.Doc != nil
			for _, spec := range f.Imports {
				name, _ := strconv.Unquote(spec.Path.Value)
				if why := refuse(room, name); why != "" {
					t.Errorf("%s imports %s: %s", room, name, why)
				}
			}
			if slices.Contains(pure, room) {
				impurities(f, func(what string) { t.Errorf("%s uses %s: a pure room is handed what it needs", room, what) })
			}
		}
		if !documented {
			t.Errorf("%s has no package comment", room)
		}
	}
}

// refuse tells why a room must not import a package, or nothing.
func refuse(room, name string) string {
	for dependency, rooms := range homes {
		if strings.HasPrefix(name, dependency) && !slices.Contains(rooms, room) {
			return "its home is " + strings.Join(rooms, ", ")
		}
	}
	local, ours := strings.CutPrefix(name, module)
	switch {
	case room == "sdk/webhook" && strings.Contains(name, "."):
		return "receivers take sdk/webhook without any dependency"
	case !ours:
		if slices.Contains(pure, room) && (name == "os" || name == "net/http" && room != "relay/retry" || strings.HasSuffix(name, "/rand")) {
			return "a pure room does no I/O and draws no lots" // relay/retry reads HTTP dates
		}
		return ""
	case room == "cluster":
		return "cluster knows nothing of webhooks"
	case local == "cluster" && room != "relay/replica" && room != "cmd/edgerelay":
		return "relay/replica is the one bridge"
	case adapterOf(local) != "" && room != "cmd/edgerelay" && adapterOf(room) != adapterOf(local):
		return "no adapter is imported by another room: cmd/edgerelay joins them"
	}
	return ""
}

func adapterOf(room string) string {
	for _, a := range adapters {
		if room == a || strings.HasPrefix(room, a+"/") {
			return a
		}
	}
	return ""
}

func impurities(f *ast.File, found func(string)) {
	ast.Inspect(f, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.GoStmt:
			found("a goroutine")
		case *ast.SelectorExpr:
			if pkg, ok := n.X.(*ast.Ident); ok && pkg.Name == "time" && slices.Contains([]string{"Now", "Since", "Until", "After", "Sleep", "NewTimer", "NewTicker", "AfterFunc"}, n.Sel.Name) {
				found("time." + n.Sel.Name)
			}
		}
		return true
	})
}

// parseRooms parses the program's files, without tests, by folder.
func parseRooms(t *testing.T) map[string][]*ast.File {
	rooms := map[string][]*ast.File{}
	err := filepath.WalkDir("..", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (d.Name() == "testdata" || d.Name() == "node_modules" || strings.HasPrefix(d.Name(), ".") && len(d.Name()) > 2) {
			return fs.SkipDir
		}
		if !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") {
			return nil
		}
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ParseComments)
		if err != nil {
			return err
		}
		room := strings.TrimPrefix(path.Dir(filepath.ToSlash(name)), "../")
		rooms[room] = append(rooms[room], f)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return rooms
}
