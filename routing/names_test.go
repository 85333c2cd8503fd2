package routing

import "testing"

// TestSameNames: only what can't make an address another's leaves the names the same.
func TestSameNames(t *testing.T) {
	base := town(t, "health", "tax")
	health, _ := base.Agency("health")
	bigger := townMapping(t, "health", 4)
	remapped := health
	remapped.Mapping = bigger.Digest()
	at := func(change func(*Position)) Position {
		p := base.Position()
		change(&p)
		return p
	}
	lost := remapped
	lost.Mapping = Digest{1}
	for _, c := range []struct {
		name string
		u    Update
		want bool
	}{
		{"nothing", Update{}, true},
		{"closed", Update{Agencies: []Agency{begun(t, health)}, Position: at(func(p *Position) { p.Revision++ })}, true},
		{"another mapping", Update{Agencies: []Agency{remapped}, Mappings: []*Mapping{bigger}}, false},
		{"mapping that isn't there", Update{Agencies: []Agency{lost}}, false},
		{"names changed", Update{Position: at(func(p *Position) { p.Mapped++ })}, false},
		{"another term", Update{Position: at(func(p *Position) { p.Term++ })}, false},
		{"another table", Update{Position: at(func(p *Position) { p.Incarnation = "other" })}, false},
		{"lost names", Update{LostNames: true}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			next := mustApply(t, base, c.u)
			if next.SameNames(base) != c.want || base.SameNames(next) != c.want {
				t.Errorf("%t, want %t", !c.want, c.want)
			}
		})
	}
}

func begun(t *testing.T, a Agency) Agency {
	t.Helper()
	a, err := a.Begin("op", 7, EventBegin)
	if err != nil {
		t.Fatal(err)
	}
	return a
}
