package campaign

import (
	"math/rand/v2"
	"strings"
	"testing"
)

func TestMix(t *testing.T) {
	const list = "address;directory_id;agency;list;digest\r\n" +
		"a@x;1;x;x-1;da\r\nb@x;2;x;x-1;db\r\nc@x;3;x;x-1;dc\r\n"
	right := map[string]bool{"a@x;1": true, "b@x;2": true, "c@x;3": true}
	seen := make(map[string]bool)
	random := rand.New(rand.NewPCG(1, 1))
	for range 200 {
		mixed, how, ok := mix(list, random.IntN)
		if !ok {
			t.Fatalf("not mixed: %q", list)
		}
		seen[how] = true
		wrong := 0
		lines := strings.Split(strings.TrimSpace(mixed), "\n")
		for _, line := range lines[1:] {
			if f := strings.Split(line, ";"); !right[strings.Join(f[:2], ";")] {
				wrong++
			}
		}
		want := 2
		if strings.HasPrefix(how, "all") {
			want = 3
		}
		if wrong != want || len(lines) != 4 || strings.Contains(mixed, "digest") == strings.HasSuffix(how, "without digests") {
			t.Errorf("%s: %d rows are wrong, want %d:\n%s", how, wrong, want, mixed)
		}
	}
	if len(seen) != 8 {
		t.Errorf("%d ways, want 8: %v", len(seen), seen)
	}
	for _, short := range []string{"", "address;account\n", "mail;guid;list;digest\na;b;c;d\ne;f;g;h\n"} {
		if _, _, ok := mix(short, func(int) int { return 0 }); ok {
			t.Errorf("mixed: %q", short)
		}
	}
}
