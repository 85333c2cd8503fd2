package replica

import (
	"crypto/sha256"
	"fmt"
	"testing"
)

// A copy on disk whose digest is right, whatever is in it, is read or refused.
func FuzzRecords(f *testing.F) {
	f.Add("copy {\"format\":" + fmt.Sprint(diskFormat) + ",\"incarnation\":\"x\",\"records\":1}\nagency {\"id\":\"health\"}\n")
	f.Add("copy {}\nmember null\nseen null\ndomain null\nfixed null\nfreeze null\noperation null\ndocument null\n")
	f.Fuzz(func(t *testing.T, text string) {
		head, u, _, err := parseRecords(fmt.Appendf([]byte(text), "end %x\n", sha256.Sum256([]byte(text))))
		if err == nil && (head.Incarnation == "" || u.Position.Incarnation != head.Incarnation) {
			t.Fatalf("read: %+v", head)
		}
		if _, _, _, err := parseRecords([]byte(text)); err == nil {
			t.Fatal("read without the digest")
		}
	})
}
