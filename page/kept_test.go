package page

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// TestKeptAsksApart: what is slow to answer keeps nobody waiting who wants something else, all who want
// it share one question, and who doesn't want to wait any more goes.
func TestKeptAsksApart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := kept[string]{age: time.Second}
		asked := 0
		answers := make(chan string, 10)
		for range 3 {
			go func() {
				is, err := k.of(t.Context(), "slow", func() (string, error) {
					asked++
					time.Sleep(time.Minute)
					return "late", nil
				})
				answers <- is
				if err != nil {
					t.Error(err)
				}
			}()
			synctest.Wait()
		}
		began := time.Now()
		if is, err := k.of(t.Context(), "fast", func() (string, error) { return "now", nil }); is != "now" || err != nil || time.Since(began) != 0 {
			t.Errorf("another thing: %q, %v, after %v", is, err, time.Since(began))
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := k.of(ctx, "slow", nil); !errors.Is(err, context.DeadlineExceeded) || time.Since(began) != time.Second {
			t.Errorf("who doesn't wait: %v, after %v", err, time.Since(began))
		}
		for range 3 {
			if is := <-answers; is != "late" || asked != 1 {
				t.Errorf("%q, asked %d times", is, asked)
			}
		}
	})
}

func TestKeptAges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := kept[int]{age: time.Second}
		n := 0
		ask := func() (int, error) { n++; return n, nil }
		for i, want := range []int{1, 1, 2, 2, 3} { // half a second apart
			if is, err := k.of(t.Context(), "x", ask); is != want || err != nil {
				t.Errorf("look %d: %d, %v, want %d", i, is, err, want)
			}
			time.Sleep(500 * time.Millisecond)
		}
	})
}

// TestKeptFailures: an error is everybody's who waited, and nobody's afterwards; that the one who asked
// has left is nobody else's.
func TestKeptFailures(t *testing.T) {
	refused := errors.New("refused")
	for name, c := range map[string]struct {
		err   error
		left  bool
		panic bool
		want  error // of who waits
		asked int32 // by whom waits
	}{
		"refused": {err: refused, want: refused},
		"left":    {err: refused, left: true, asked: 1},
		"panic":   {panic: true, want: errUnasked},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				k := kept[int]{age: time.Second}
				first, leave := context.WithCancel(t.Context())
				defer leave()
				go func() {
					defer func() { _ = recover() }()
					_, _ = k.of(first, "x", func() (int, error) {
						time.Sleep(time.Second)
						if c.panic {
							panic("broken")
						}
						if c.left {
							leave()
						}
						return 0, c.err
					})
				}()
				synctest.Wait()
				var asked atomic.Int32
				answer := func() (int, error) { asked.Add(1); return 7, nil }
				is, err := k.of(t.Context(), "x", answer)
				if !errors.Is(err, c.want) || c.want == nil && is != 7 || asked.Load() != c.asked {
					t.Errorf("who waited has %d, %v, after %d questions; want %v", is, err, asked.Load(), c.want)
				}
				if is, err := k.of(t.Context(), "x", answer); is != 7 || err != nil {
					t.Errorf("who comes next has %d, %v", is, err)
				}
			})
		})
	}
}
