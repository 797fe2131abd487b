int main(int count, char **arguments) {
  char text[8];
  strcpy(text, arguments[1]);
}
