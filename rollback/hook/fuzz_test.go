package hook

import (
	"testing"
	"unicode"

	"mailcutover/routing"
)

// Whatever a hook says, each mailbox has one result, in its place, and done is only what the hook
// called done.
func FuzzAnswer(f *testing.F) {
	first, err := routing.ParseMailboxID("00000000-0000-0000-0000-000000000001")
	if err != nil {
		f.Fatal(err)
	}
	second, err := routing.ParseMailboxID("00000000-0000-0000-0000-000000000002")
	if err != nil {
		f.Fatal(err)
	}
	boxes := []Mailbox{{ID: first}, {ID: second}}
	f.Add([]byte("{\"mailbox\":\"00000000-0000-0000-0000-000000000001\",\"ok\":true}\n{\"mailbox\":\"00000000-0000-0000-0000-000000000002\",\"ok\":false,\"error\":\"no\"}\n"))
	f.Add([]byte("{\"mailbox\":\"00000000-0000-0000-0000-000000000001\",\"ok\":true}\n{\"mailbox\":\"00000000-0000-0000-0000-000000000001\",\"ok\":false}\n"))
	f.Add([]byte("null\n\n[]\n"))
	f.Fuzz(func(t *testing.T, answer []byte) {
		results, _ := readAnswer(answer, boxes)
		if len(results) != len(boxes) {
			t.Fatalf("%d results", len(results))
		}
		for i, r := range results {
			if r.ID != boxes[i].ID || !r.OK && r.Error == "" {
				t.Fatalf("result %d: %+v", i, r)
			}
			for _, c := range r.Error {
				if !unicode.IsPrint(c) {
					t.Fatalf("result %d: %q", i, r.Error)
				}
			}
		}
	})
}
