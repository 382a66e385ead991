// Package catalogue holds the event types that every store has, each with a
// sample of its data. It is pure and embedded in the program.
package catalogue

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"sync"
)

// Type is an event type.
type Type struct {
	Name        string
	Description string
	Sample      []byte // of the data: a canonical JSON object
}

//go:embed types.json
var source []byte

type index struct {
	all    []Type
	byName map[string]Type
}

var load = sync.OnceValue(func() index {
	var rows []struct {
		Name, Description string
		Sample            json.RawMessage
	}
	if err := json.Unmarshal(source, &rows); err != nil {
		panic(err) // embedded: its test reads it
	}
	x := index{byName: map[string]Type{}}
	for _, r := range rows {
		var b bytes.Buffer
		_ = json.Compact(&b, r.Sample) // it was read above
		t := Type{Name: r.Name, Description: r.Description, Sample: b.Bytes()}
		x.all, x.byName[t.Name] = append(x.all, t), t
	}
	return x
})

// All lists the types in the guide's order. The slice is shared: do not change it.
func All() []Type { return load().all }

// Lookup finds a type by its name.
func Lookup(name string) (Type, bool) {
	t, ok := load().byName[name]
	return t, ok
}
