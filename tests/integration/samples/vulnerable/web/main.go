package main

func list(w http.ResponseWriter, r *http.Request) {
	name := r.URL.Query().Get("name")
	exec.Command("sh", "-c", "ls "+name).Run()
	client := &tls.Config{InsecureSkipVerify: true}
}
