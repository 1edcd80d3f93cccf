module portico.dev/tests/isolation

go 1.24
