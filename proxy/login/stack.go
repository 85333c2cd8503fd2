package login

// stackBytes is what a login takes, from the dialogue down to the platform's socket, with some
// to spare.
const stackBytes = 12 << 10

// room grows the goroutine's stack to what a login takes while there is little on it. It would
// grow step by step else, and each step copies all that is on it: a twentieth of a login.
//
//go:noinline
func room() byte {
	var b [stackBytes]byte
	return last(&b)
}

//go:noinline
func last(b *[stackBytes]byte) byte { return b[len(b)-1] }
