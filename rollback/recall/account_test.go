package recall

import "testing"

// A message that was named as not back, and is found on To later, isn't named any more: neither by
// itself nor as one of a set.
func TestNotBackAndThere(t *testing.T) {
	t.Parallel()
	inbox := func(uid uint32) origin { return origin{Folder: "INBOX", Validity: 7, UID: uid} }
	for _, c := range []struct {
		name  string
		there record
		left  int
	}{
		{"by itself", record{Kind: kindThere, origin: inbox(5)}, 0},
		{"in a set", record{Kind: kindThere, origin: inbox(0), Set: "3:6,9"}, 0},
		{"in another set", record{Kind: kindThere, origin: inbox(0), Set: "3:4,6"}, 1},
		{"in another folder", record{Kind: kindThere, origin: origin{Folder: "Sent", Validity: 7}, Set: "3:6"}, 1},
		{"before the folder was made anew", record{Kind: kindThere, origin: origin{Folder: "INBOX", Validity: 6}, Set: "3:6"}, 1},
	} {
		a := newAccount()
		a.apply(&record{Kind: kindNotBack, origin: inbox(5), Class: ClassDropped})
		a.apply(&c.there)
		if got := a.result(nil).NotBack; len(got) != c.left {
			t.Errorf("%s: %d messages are named as not back, want %d", c.name, len(got), c.left)
		}
	}
}
