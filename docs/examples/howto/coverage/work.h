unsigned collatz(unsigned value);
int classify(int value);
int work(void);
