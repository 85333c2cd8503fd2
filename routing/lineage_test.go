package routing

import (
	"testing"
	"time"
)

func term(number uint32, base Revision, began int64) Term {
	return Term{Number: number, Base: base, Began: time.UnixMicro(began).UTC()}
}

func TestCommonHistory(t *testing.T) {
	first := Lineage{term(1, 0, 10)}
	second := first.With(term(2, 100, 20))
	third := second.With(term(3, 150, 30))
	for _, c := range []struct {
		name   string
		ours   Lineage
		at     Revision
		theirs Lineage
		other  Revision
		want   Revision
	}{
		{"the same", second, 120, second, 120, 120},
		{"the other is further", second, 120, second, 130, 120},
		{"a term later, nothing lost", first, 100, second, 120, 100},
		{"a term later, something lost", first, 104, second, 120, 100},
		{"two terms later", first, 104, third, 170, 100},
		{"two terms later, from the middle one", second, 170, third, 160, 150},
		{"a branch of the last term but one", first.With(term(2, 90, 21)), 95, third, 170, 90},
		{"a branch in the same term", first.With(term(2, 100, 21)), 140, second, 140, 100},
		{"a branch at another revision", first.With(term(2, 105, 20)), 140, second, 140, 100},
		{"a branch in a later term", second.With(term(4, 110, 31)).With(term(5, 112, 40)), 130, third, 170, 110},
		{"a backup from long ago", third, 170, first.With(term(9, 40, 90)), 60, 40},
		{"another beginning", Lineage{term(1, 0, 11)}, 50, third, 170, 0},
		{"nothing is known", nil, 50, third, 170, 0},
		{"of neither", nil, 50, nil, 50, 0},
	} {
		if got := c.ours.Common(c.at, c.theirs, c.other); got != c.want {
			t.Errorf("%s: %d, want %d", c.name, got, c.want)
		}
		if got := c.theirs.Common(c.other, c.ours, c.at); got != c.want {
			t.Errorf("%s, the other way round: %d, want %d", c.name, got, c.want)
		}
	}
	if len(first) != 1 || second.Last() != term(2, 100, 20) || (Lineage{}).Last() != (Term{}) {
		t.Errorf("first %v, second %v", first, second)
	}
}

func TestLineageIsBounded(t *testing.T) {
	var l Lineage
	for i := range uint32(MaxLineage + 50) {
		l = l.With(term(i+1, Revision(10*i), int64(i)))
	}
	if len(l) != MaxLineage || l.Last().Number != MaxLineage+50 {
		t.Fatalf("%d terms, the last %+v", len(l), l.Last())
	}
	// A copy from a term that is forgotten has nothing in common with the table; one from a term
	// that is still known does, whatever its own past.
	if got := (Lineage{term(1, 0, 0)}).Common(10, l, 9000); got != 0 {
		t.Errorf("a forgotten term: %d", got)
	}
	if got := (Lineage{term(100, 990, 99)}).Common(1005, l, 9000); got != 1000 {
		t.Errorf("a known term: %d", got)
	}
}

func TestLineageText(t *testing.T) {
	l := Lineage{term(1, 0, 0), term(2, 812, 1_700_000_000_000_000), term(4294967295, 9007199254740991, 1_700_000_000_000_001)}
	if got, err := ParseLineage(l.String()); err != nil || !got.Equal(l) {
		t.Errorf("%q: %v, %v", l.String(), got, err)
	}
	if got, err := ParseLineage(""); err != nil || got != nil {
		t.Errorf("empty: %v, %v", got, err)
	}
	for _, bad := range []string{"1", "1:2", "1:2:3:4", "x:0:0", "1:-1:0", "4294967296:0:0", "1:0:x", "2:0:0 1:0:0", "1:0:0 1:0:0"} {
		if got, err := ParseLineage(bad); err == nil {
			t.Errorf("%q: %v", bad, got)
		}
	}
}

// What a copy had and a table that came back hasn't.
func TestLosesNames(t *testing.T) {
	first := Lineage{term(1, 0, 10)}
	second := first.With(term(2, 100, 20))
	branch := first.With(term(2, 100, 21))
	third := second.With(term(3, 150, 30))
	told := []Document{{Key: NamesLost, Revision: 110}}
	at := func(term uint32, revision, mapped Revision) Position {
		return Position{Incarnation: "i", Term: term, Revision: revision, Mapped: mapped}
	}
	for _, c := range []struct {
		name  string
		ours  Update
		table Update
		want  bool
	}{
		{"nothing", Update{Position: at(1, 100, 90), Lineage: first}, Update{Position: at(2, 101, 90), Lineage: second}, false},
		{"a name", Update{Position: at(1, 104, 102), Lineage: first}, Update{Position: at(2, 101, 90), Lineage: second}, true},
		{"other changes", Update{Position: at(1, 104, 100), Lineage: first}, Update{Position: at(2, 101, 90), Lineage: second}, false},
		{"a name, two terms ago", Update{Position: at(1, 104, 102), Lineage: first}, Update{Position: at(3, 160, 155), Lineage: third}, true},
		{"a name of a branch", Update{Position: at(2, 120, 105), Lineage: branch}, Update{Position: at(2, 130, 125), Lineage: second}, true},
		{"a name of a branch, two terms ago", Update{Position: at(2, 120, 105), Lineage: branch}, Update{Position: at(3, 160, 90), Lineage: third}, true},
		{"a branch without names", Update{Position: at(2, 120, 95), Lineage: branch}, Update{Position: at(3, 160, 155), Lineage: third}, false},
		{"a name below an old backup", Update{Position: at(3, 160, 80), Lineage: third}, Update{Position: at(4, 60, 40), Lineage: first.With(term(4, 50, 40))}, true},
		{"the word of it", Update{Position: at(2, 120, 90), Lineage: branch, Documents: told}, Update{Position: at(3, 160, 90), Lineage: third}, true},
		{"the word, which is there again", Update{Position: at(2, 120, 90), Lineage: branch, Documents: told}, Update{Position: at(3, 160, 90), Lineage: third, Documents: told}, false},
		{"the word, which people took back", Update{Position: at(2, 120, 90), Lineage: second, Documents: told}, Update{Position: at(3, 160, 90), Lineage: third}, false},
		{"of a copy without a lineage", Update{Position: at(2, 120, 90)}, Update{Position: at(2, 120, 90), Lineage: second}, true},
		{"of another table", Update{Position: at(2, 120, 105), Lineage: branch}, Update{Position: Position{Incarnation: "j", Term: 1, Revision: 1}, Lineage: first}, false},
	} {
		c.ours.Whole, c.table.Whole = true, true
		s, err := NewState(Position{}).Apply(c.ours)
		if err != nil {
			t.Fatal(err)
		}
		if got := s.LosesNames(&c.table); got != c.want {
			t.Errorf("%s: %t, want %t", c.name, got, c.want)
		}
	}
}
