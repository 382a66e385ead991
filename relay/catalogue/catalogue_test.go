package catalogue

import (
	"regexp"
	"testing"

	"github.com/omnisales/edgerelay/relay/canonical"
)

func TestTypes(t *testing.T) {
	if n := len(All()); n != 34 {
		t.Fatalf("%d types, the guide has 34", n)
	}
	name := regexp.MustCompile(`^[a-z]+\.[a-z_]+$`)
	for _, ty := range All() {
		if !name.MatchString(ty.Name) || ty.Description == "" {
			t.Errorf("%+v", ty)
		}
		out, inexact, err := canonical.Append(nil, ty.Sample)
		if err != nil || string(out) != string(ty.Sample) || len(inexact) > 0 || out[0] != '{' || len(out) < 20 {
			t.Errorf("%s: %s is not canonical: %v", ty.Name, ty.Sample, err)
		}
		if got, ok := Lookup(ty.Name); !ok || got.Name != ty.Name {
			t.Errorf("%s is not found", ty.Name)
		}
	}
	if _, ok := Lookup("order.exploded"); ok {
		t.Error("an unknown type was found")
	}
}

func TestSampleIsTheGuides(t *testing.T) {
	got, _ := Lookup("product.inventory_low")
	const want = `{"product_id":"prod_123","name":"Widget","sku":"WDG-001","price":49.99,"stock":5,"category":"Electronics","low_stock_threshold":10,"created_at":"2025-01-15T08:00:00Z","updated_at":"2025-01-16T10:33:00Z"}`
	if string(got.Sample) != want {
		t.Errorf("got %s", got.Sample)
	}
}
