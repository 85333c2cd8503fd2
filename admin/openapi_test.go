package admin_test

import (
	"flag"
	"net/http"
	"os"
	"strings"
	"testing"

	"mailcutover/admin/admintest"
)

var update = flag.Bool("update", false, "write docs/operations/openapi.yaml anew")

// The committed document is the one that the node serves.
func TestDocument(t *testing.T) {
	const file = "../docs/operations/openapi.yaml"
	n := admintest.Start(t, nil)
	status, _, served := call(t, n, "GET", "/openapi.yaml", "")
	if status != http.StatusOK {
		t.Fatalf("status %d", status)
	}
	if *update {
		if err := os.WriteFile(file, []byte(served), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	committed, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if string(committed) != served {
		t.Errorf("%s is not what the node serves; go test ./admin -run TestDocument -update writes it", file)
	}
	for _, want := range []string{"openapi: 3.1.0", "/v1/agencies/{id}/cutover", "application/problem+json", "text/event-stream", "text/csv", "scheme: bearer"} {
		if !strings.Contains(served, want) {
			t.Errorf("the document lacks %q", want)
		}
	}
	for _, refuse := range []string{"ErrorModel", "$schema", "cookie"} {
		if strings.Contains(served, refuse) {
			t.Errorf("the document has %q", refuse)
		}
	}
	if status, _, json := call(t, n, "GET", "/openapi.json", ""); status != 200 || !strings.HasPrefix(json, "{") {
		t.Errorf("/openapi.json: %d", status)
	}
}
