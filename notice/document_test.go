package notice

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the table of types into the document")

// The document's table is that of the types.
func TestDocument(t *testing.T) {
	const path, mark = "../docs/operations/notices.md", "-run Document -update -->\n\n"
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	head, table, ok := strings.Cut(string(b), mark)
	if !ok {
		t.Fatalf("%s has no place for the table", path)
	}
	var want strings.Builder
	want.WriteString("| type | severity | says | data |\n|---|---|---|---|\n")
	for _, a := range Types() {
		fmt.Fprintf(&want, "| `%s` | %s | %s | %s |\n", a.Type, a.Severity, strings.ReplaceAll(a.English, "|", "\\|"), strings.Join(a.Data, ", "))
	}
	if *update {
		if err := os.WriteFile(path, []byte(head+mark+want.String()), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if table != want.String() {
		t.Errorf("%s isn't up to date: go test ./notice -run Document -update", path)
	}
}
